"""An App Store of tests: a chain as Apple's is made, and transactions that it signs with code that is not ours."""

import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from broker.shops.app_store import ISSUER_MARK, LEAF_MARK

BUNDLE = "example.studio"
PRODUCT = "twenty_credits"


class Signer:
    """A certificate with its key, and whoever issued it."""

    def __init__(
        self,
        name: str,
        issuer: "Signer | None" = None,
        *,
        mark: ObjectIdentifier | None = None,
        is_ca: bool = True,
        lasts: timedelta = timedelta(days=30),
    ) -> None:
        self.key = generate_private_key(SECP256R1())
        self.issuer = issuer
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        began = datetime.now(UTC) - timedelta(days=60)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(began)
            .not_valid_after(datetime.now(UTC) + lasts)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if mark is not None:
            builder = builder.add_extension(x509.UnrecognizedExtension(mark, b"\x05\x00"), critical=False)
        self.certificate = builder.sign(_key_of(issuer) or self.key, SHA256())

    @property
    def chain(self) -> list[str]:
        """The certificates up to the root, as x5c has them."""
        own = b64encode(self.certificate.public_bytes(Encoding.DER)).decode()
        return [own, *(self.issuer.chain if self.issuer else [])]

    def signed(self, algorithm: str = "ES256", *, chain: list[str] | None = None, **changed: Any) -> str:
        """Sign a transaction as StoreKit 2 shows it to the app; `chain` shows other certificates than its own."""
        content = {
            "transactionId": str(uuid4().int)[:16],
            "originalTransactionId": "1",
            "bundleId": BUNDLE,
            "productId": PRODUCT,
            "purchaseDate": int(time.time() * 1000),
            "quantity": 1,
            "type": "Consumable",
            "inAppOwnershipType": "PURCHASED",
            "signedDate": int(time.time() * 1000),
            "environment": "Production",
            "storefront": "TUR",
            **changed,
        }
        key: Any = self.key if algorithm == "ES256" else "x" * 32
        return jwt.encode(content, key, algorithm=algorithm, headers={"x5c": chain or self.chain})


def apple() -> tuple[Signer, Signer]:
    """Return a root, and a leaf below it that signs transactions."""
    root = Signer("Root")
    issuer = Signer("Issuer", root, mark=ISSUER_MARK)
    return root, Signer("Leaf", issuer, mark=LEAF_MARK, is_ca=False)


def _key_of(signer: Signer | None) -> EllipticCurvePrivateKey | None:
    return signer.key if signer else None

"""
The App Store: a transaction that StoreKit 2 has signed (JWS, ES256), checked offline up to Apple's root.

The chain and its two marks are those of Apple's App Store Server API ("JWSTransaction"). Nobody is asked; that a
purchase was paid back later is not learned.
"""

from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ObjectIdentifier

from broker.account_errors import InvalidPurchase
from broker.purchases import MAX_MS, Purchase, Shop
from broker.settings import SettingsInvalid

LEAF_MARK: Final = ObjectIdentifier("1.2.840.113635.100.6.11.1")
ISSUER_MARK: Final = ObjectIdentifier("1.2.840.113635.100.6.2.1")
_CHAIN: Final = 3
# What is read comes from a phone, certificates too; these have no base of their own in `cryptography`.
_UNSIGNED: Final = (
    *(ValueError, TypeError, msgspec.DecodeError, InvalidSignature, UnsupportedAlgorithm),
    *(x509.InvalidVersion, x509.ExtensionNotFound, x509.DuplicateExtension),
)
_COORDINATE_BYTES: Final = 32


class _Header(msgspec.Struct, frozen=True):
    alg: str
    x5c: list[str]


class _Transaction(msgspec.Struct, frozen=True, rename="camel"):
    """The members that are read; the rest is the app's business."""

    transaction_id: str
    bundle_id: str
    product_id: str
    purchase_date: Annotated[int, msgspec.Meta(ge=0, le=MAX_MS)]
    type: str
    environment: str
    quantity: int = 1
    revocation_date: int | None = None


class AppStore:
    """Checks transactions of one app."""

    def __init__(
        self, root: x509.Certificate, bundle_id: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._root = root
        self._bundle_id = bundle_id
        self._now = now

    async def verify(self, receipt: str, product: str) -> Purchase:
        """Return what a signed transaction is of; `product` is not needed. Raises InvalidPurchase."""
        del product
        try:
            found = self._read(receipt)
        except _UNSIGNED as exc:
            raise InvalidPurchase("this is no transaction that Apple has signed") from exc
        if found.bundle_id != self._bundle_id or found.environment != "Production" or found.type != "Consumable":
            raise InvalidPurchase("this is no purchase of a consumable in this app, or not a real one")
        if found.revocation_date is not None or found.quantity < 1:
            raise InvalidPurchase("this purchase was taken back")
        return Purchase(
            shop=Shop.APP_STORE,
            transaction=found.transaction_id,
            product=found.product_id,
            quantity=found.quantity,
            bought_at=datetime.fromtimestamp(found.purchase_date / 1000, UTC),
        )

    async def finish(self, receipt: str, product: str) -> None:
        """Do nothing: the app finishes its transaction itself."""

    async def aclose(self) -> None:
        """Let go of nothing."""

    def _read(self, receipt: str) -> _Transaction:
        head, payload, signature = receipt.split(".")
        header = msgspec.json.decode(_decoded(head), type=_Header)
        if header.alg != "ES256":
            raise ValueError("alg")
        key = self._leaf([x509.load_der_x509_certificate(b64decode(one)) for one in header.x5c]).public_key()
        raw = _decoded(signature)
        if not isinstance(key, EllipticCurvePublicKey) or len(raw) != 2 * _COORDINATE_BYTES:
            raise ValueError("signature")
        r, s = int.from_bytes(raw[:_COORDINATE_BYTES]), int.from_bytes(raw[_COORDINATE_BYTES:])
        key.verify(encode_dss_signature(r, s), f"{head}.{payload}".encode(), ECDSA(SHA256()))
        return msgspec.json.decode(_decoded(payload), type=_Transaction)

    def _leaf(self, chain: list[x509.Certificate]) -> x509.Certificate:
        """Return the first certificate of a chain that leads to the root; raise ValueError, InvalidSignature."""
        if len(chain) != _CHAIN or chain[2] != self._root:
            raise ValueError("chain")
        leaf, issuer, root = chain
        leaf.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(root)
        marks = (leaf.extensions, LEAF_MARK), (issuer.extensions, ISSUER_MARK)
        if any(mark not in {one.oid for one in found} for found, mark in marks):
            raise ValueError("marks")
        if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise ValueError("issuer")
        if any(not one.not_valid_before_utc <= self._now() <= one.not_valid_after_utc for one in chain):
            raise ValueError("time")
        return leaf


def load_root(path: Path) -> x509.Certificate:
    """Read a root certificate, DER as Apple gives it out or PEM; raise SettingsInvalid."""
    try:
        data = path.read_bytes()
        is_pem = data.startswith(b"-----BEGIN")
        return x509.load_pem_x509_certificate(data) if is_pem else x509.load_der_x509_certificate(data)
    except (OSError, ValueError) as exc:
        raise SettingsInvalid("LETHE_APP_STORE_ROOT_FILE cannot be read, or is no certificate") from exc


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))

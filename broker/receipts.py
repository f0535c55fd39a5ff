"""
The vocabulary of receipts: the statement, its canonical bytes, and the signed note around it.

Format: C2SP signed-note (https://c2sp.org/signed-note), signature type 0x01 (Ed25519); the text is one line of JSON.
"""

import base64
import hashlib
from datetime import UTC, datetime
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broker.custody import Copy, Domain, Evidence, What
from broker.jobs import Job
from providers.base import Exposure

ED25519 = b"\x01"
PROVIDER_WORDS: dict[Evidence | None, str] = {
    Evidence.DELETED_BY_API: "deleted",
    Evidence.EXPIRES_BY: "expires",
    Evidence.PURGE_PENDING: "pending",
    Evidence.KEPT_BY_TERMS: "kept",
    Evidence.UNKNOWN: "unknown",
    None: "unknown",
}
LEAST_CERTAIN_LAST = ("none", "deleted", "expires", "pending", "kept", "unknown")
TYPE = "lethe/receipt/v1"


class ReceiptInvalid(Exception):
    """The receipt is damaged, or no known key has signed it."""


class CopyLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One custody row as a receipt states it."""

    domain: str
    holder: str
    what: str
    opened_at: str
    closed_at: str = ""
    evidence: str = ""
    provider: str = ""
    until: str = ""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed: which job, how it ended, and every copy of its upload with how it is known to be gone."""

    type: str
    job: UUID
    revision: int
    operation: str
    outcome: str
    code: str
    profile: str
    exposure: str
    received_at: str
    decided_at: str
    settled_at: str
    provider_copies: str
    copies: tuple[CopyLine, ...]


def statement(job: Job, copies: list[Copy], *, exposure: str, settled_at: datetime, revision: int = 1) -> Receipt:
    """State a settled job; outputs in our hands are not uploads and are left out, those at providers are not."""
    assert job.outcome is not None
    assert job.decided_at is not None
    return Receipt(
        type=TYPE,
        job=job.public_id,
        revision=revision,
        operation=job.operation,
        outcome=job.outcome,
        code=job.code,
        profile=job.profile,
        exposure=exposure,
        received_at=whole_seconds(job.created_at),
        decided_at=whole_seconds(job.decided_at),
        settled_at=whole_seconds(settled_at),
        provider_copies=provider_copies(copies),
        copies=tuple(_line(c) for c in copies if c.domain is Domain.PROVIDER or c.what is not What.OUTPUT),
    )


def provider_copies(copies: list[Copy]) -> str:
    """Say in one word what is known of the copies that providers had: the least certain of all."""
    words = {PROVIDER_WORDS[copy.evidence] for copy in copies if copy.domain is Domain.PROVIDER}
    return max(words, key=LEAST_CERTAIN_LAST.index, default="none")


def exposure_of(copies: list[Copy]) -> Exposure:
    """Say who may have seen or kept the picture: the widest exposure of all copies that went to providers."""
    exposures = [Exposure(copy.detail) for copy in copies if copy.domain is Domain.PROVIDER]
    return max(exposures, key=lambda exposure: exposure.rank, default=Exposure.LOCAL)


def settled_at(copies: list[Copy]) -> datetime:
    """Say when the last copy of ours was seen to be gone."""
    ours = (copy.closed_at for copy in copies if copy.domain is Domain.OURS and copy.closed_at is not None)
    return max(ours, default=datetime.now(UTC))


def whole_seconds(at: datetime) -> str:
    """Write a time as RFC 3339 in UTC without fractions."""
    return at.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _line(copy: Copy) -> CopyLine:
    return CopyLine(
        domain=copy.domain,
        holder=copy.holder,
        what=copy.what,
        opened_at=whole_seconds(copy.opened_at),
        closed_at=whole_seconds(copy.closed_at) if copy.closed_at else "",
        evidence=copy.evidence or "",
        provider=copy.provider,
        until=whole_seconds(copy.until) if copy.until else "",
    )


class Signer:
    """The Ed25519 key that brokers and workers share, under a name."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._name = name
        self._key = key
        public = key.public_key().public_bytes_raw()
        self._key_id = key_id(name, public)
        self.vkey = f"{name}+{self._key_id.hex()}+{base64.b64encode(ED25519 + public).decode()}"

    def sign(self, stated: msgspec.Struct) -> str:
        """Return a statement, a receipt for example, as a signed note."""
        text = canonical(stated) + "\n"
        signature = base64.b64encode(self._key_id + self._key.sign(text.encode())).decode()
        return f"{text}\n— {self._name} {signature}\n"


def canonical(stated: msgspec.Struct) -> str:
    """One line of JSON with sorted keys (RFC 8785 for the values used here: strings, small integers, arrays)."""
    return msgspec.json.encode(stated, order="sorted").decode()


def key_id(name: str, public: bytes) -> bytes:
    """First four bytes of SHA-256(name ‖ newline ‖ type ‖ key), as signed-note has it."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def verify(note: str, vkeys: list[str]) -> Receipt:
    """Return the receipt when one of the keys signed it; raise ReceiptInvalid otherwise."""
    try:
        receipt = msgspec.json.decode(signed_text(note, vkeys), type=Receipt)
    except msgspec.DecodeError as exc:
        raise ReceiptInvalid("signed, but not a receipt") from exc
    if receipt.type != TYPE:
        raise ReceiptInvalid("signed, but not a receipt of this version")
    return receipt


def signed_text(note: str, vkeys: list[str]) -> str:
    """Return the text of a signed note when one of the keys signed it; raise ReceiptInvalid otherwise."""
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise ReceiptInvalid("not a signed note")
    text += "\n"
    if not any(_signed_by(text, line, vkey) for line in signatures.splitlines() for vkey in vkeys):
        raise ReceiptInvalid("no signature by a known key")
    return text


def _signed_by(text: str, line: str, vkey: str) -> bool:
    try:
        name, key_hex, encoded = vkey.split("+", 2)
        key = base64.b64decode(encoded, validate=True)
        dash, signer, signature_text = line.split(" ")
        signature = base64.b64decode(signature_text, validate=True)
    except ValueError:
        return False
    if base64.b64encode(signature).decode() != signature_text:
        return False  # the same bytes, written in a second way
    expected = key_id(name, key[1:])
    if (dash, signer, key[:1], key_hex, signature[:4]) != ("—", name, ED25519, expected.hex(), expected):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True

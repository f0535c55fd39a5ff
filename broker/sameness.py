"""How a repeated request is known: by keyed hashes of what was sent, never by a plain digest, never by a stored key."""

import hashlib
import hmac
from collections.abc import Mapping
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION = ~(0xF << 76), 8 << 76
_VARIANT = ~(0x3 << 62), 2 << 62


class Fingerprint:
    """Sameness of a repeated upload: HMAC-SHA256(HKDF(bearer token, "lethe/fingerprint/v1"), pictures ‖ parameters)."""

    def __init__(self, token: str) -> None:
        self._mac = hmac.new(_derived(token, b"lethe/fingerprint/v1"), digestmod=hashlib.sha256)
        self._sizes: list[int] = []
        self._size_bytes = 0

    def update(self, chunk: bytes) -> None:
        """Take in what comes next of a picture."""
        self._mac.update(chunk)
        self._size_bytes += len(chunk)

    def end_picture(self) -> None:
        """Note where one picture ends: two that were cut elsewhere are others."""
        self._sizes.append(self._size_bytes)
        self._size_bytes = 0

    def finish(self, operation: str, parameters: Mapping[str, str | int], texts: bytes | bytearray = b"") -> bytes:
        """Return 32 bytes that are the same for the same user, pictures, operation, parameters and texts alone."""
        asked: list[object] = [operation, sorted(parameters.items())]
        if len(self._sizes) != 1:
            asked.append(self._sizes)
        self._mac.update(msgspec.json.encode(asked))
        self._mac.update(texts)
        return self._mac.digest()


def job_id_of(token: str, idempotency_key: str) -> UUID:
    """
    Make the id of the job that a user asks for under an Idempotency-Key: a UUID of version 8 that tells neither.

    Nothing but the id has to be stored to know the key again.
    """
    key = _derived(token, b"lethe/idempotency/v1")
    number = int.from_bytes(hmac.digest(key, idempotency_key.encode(), hashlib.sha256)[:16])
    for mask, bits in (_VERSION, _VARIANT):
        number = number & mask | bits
    return UUID(int=number)


def _derived(token: str, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=None, info=purpose).derive(token.encode())

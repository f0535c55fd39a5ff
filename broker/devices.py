"""The vocabulary of sealed outputs: devices with a public key, and an output's key as it is wrapped to one of them."""

from datetime import date
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

MOST_DEVICES = 10


class Kem(StrEnum):
    """How a key is wrapped to a device: the KEM of HPKE (RFC 9180); KDF and AEAD are the same for each."""

    X25519 = "x25519"  # DHKEM(X25519, HKDF-SHA256), 0x0020
    P256 = "p256"  # DHKEM(P-256, HKDF-SHA256), 0x0010: what secure hardware has
    XWING = "xwing"  # X-Wing, ML-KEM-768 with X25519, 0x647a: holds against quantum computers too


PUBLIC_KEY_BYTES: Final = {Kem.X25519: 32, Kem.P256: 65, Kem.XWING: 1216}
WRAPPED_KEY_BYTES: Final = {Kem.X25519: 80, Kem.P256: 113, Kem.XWING: 1168}


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `devices`: a public key under a random id, and nothing of the device itself."""

    id: UUID
    kem: Kem
    public_key: bytes
    created_on: date


class WrappedKey(msgspec.Struct, frozen=True, kw_only=True):
    """What opens one output and its thumbnail, wrapped to one device: HPKE's `enc`, then its ciphertext."""

    device_id: UUID
    kem: Kem
    wrapped: bytes

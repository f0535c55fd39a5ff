"""
Wraps an output's key to a device with HPKE (RFC 9180, base mode, one shot): HKDF-SHA256, AES-256-GCM, a KEM per device.

`info` and `context` are ASCII and say what the key, or the blob, is of: what was wrapped for another output, job or
device does not open, and neither does one blob in the place of another.
"""

from typing import Final, TypeAlias
from uuid import UUID

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite

from broker.devices import PUBLIC_KEY_BYTES, Device, Kem, WrappedKey

SUITES: Final = {
    Kem.X25519: Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    Kem.P256: Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    Kem.XWING: Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
}

_MLKEM768_BYTES: Final = 1184

_PublicKey: TypeAlias = X25519PublicKey | EllipticCurvePublicKey | MLKEM768X25519PublicKey


class DeviceKeyUnusable(Exception):
    """Nothing can be sealed to this public key: its length or its curve is wrong, or it is a point that leaks."""


def key_info(job: UUID, n: int, device: UUID, kem: Kem) -> bytes:
    """Return the `info` under which the key of output `n` is wrapped; `job` is the id that its user chose."""
    return f"lethe/sealed-key/v1 {job} {n} {device} {kem}".encode()


def output_context(job: UUID, n: int) -> bytes:
    """Return the context of the ciphertext of an output."""
    return f"lethe/sealed-output/v1 {job} {n}".encode()


def thumbnail_context(job: UUID, n: int) -> bytes:
    """Return the context of the ciphertext of its thumbnail."""
    return f"lethe/sealed-thumbnail/v1 {job} {n}".encode()


def check_public_key(kem: Kem, public_key: bytes) -> None:
    """Raise DeviceKeyUnusable where nothing could be sealed to a key; tries it out."""
    try:
        SUITES[kem].encrypt(b"", _read(kem, public_key), b"")
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise DeviceKeyUnusable(kem) from exc


def wrap_key(key: bytearray, device: Device, *, job: UUID, n: int) -> WrappedKey:
    """Wrap the key of an output to a device; the caller wipes the key. ValueError for a key that is none."""
    info = key_info(job, n, device.id, device.kem)
    wrapped = SUITES[device.kem].encrypt(key, _read(device.kem, device.public_key), info)
    return WrappedKey(device_id=device.id, kem=device.kem, wrapped=wrapped)


def _read(kem: Kem, raw: bytes) -> _PublicKey:
    if len(raw) != PUBLIC_KEY_BYTES[kem]:
        raise ValueError("length")
    match kem:
        case Kem.X25519:
            return X25519PublicKey.from_public_bytes(raw)
        case Kem.P256:
            return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), raw)
        case Kem.XWING:
            ml_kem = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM768_BYTES])
            return MLKEM768X25519PublicKey(ml_kem, X25519PublicKey.from_public_bytes(raw[_MLKEM768_BYTES:]))

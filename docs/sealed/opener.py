"""
Opens what Lethe has sealed to a device: the reference in Python, which needs `cryptography` 47 or newer and no Lethe.

docs/sealed.md explains it; vectors.json has known answers. opener.ts is the same for TypeScript. Not hardened: a
program that opens pictures of people should wipe what it no longer needs.
"""

import hashlib
from collections.abc import Iterator

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, derive_private_key
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

KEMS = {"x25519": KEM.X25519, "p256": KEM.P256, "xwing": KEM.MLKEM768_X25519}
CHUNK_BYTES = 16 * 1024
TAG_BYTES = 16
SALT_BYTES = 24
HEADER_BYTES = SALT_BYTES + 32
LABEL = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"


def key_info(job_id: str, n: int, device_id: str, kem: str) -> bytes:
    """Say what a wrapped key is of; ids are UUIDs in lower case."""
    return f"lethe/sealed-key/v1 {job_id} {n} {device_id} {kem}".encode()


def output_context(job_id: str, n: int) -> bytes:
    """Say what a ciphertext is of."""
    return f"lethe/sealed-output/v1 {job_id} {n}".encode()


def thumbnail_context(job_id: str, n: int) -> bytes:
    """Say the same of the ciphertext of a thumbnail."""
    return f"lethe/sealed-thumbnail/v1 {job_id} {n}".encode()


def open_key(kem: str, private_key: bytes, wrapped: bytes, info: bytes) -> bytes:
    """Return the 32 bytes of an output's key; raise InvalidTag where key, info or device is another one."""
    return Suite(KEMS[kem], KDF.HKDF_SHA256, AEAD.AES_256_GCM).decrypt(wrapped, _private(kem, private_key), info)


def wrap_key(kem: str, public_key: bytes, key: bytes, info: bytes) -> bytes:
    """Wrap an output's key to another device, whose own id and KEM stand in `info`."""
    return Suite(KEMS[kem], KDF.HKDF_SHA256, AEAD.AES_256_GCM).encrypt(key, _public(kem, public_key), info)


def open_sealed(key: bytes, ciphertext: bytes, context: bytes) -> bytes:
    """Return the plaintext; raise ValueError or InvalidTag where it was changed, cut or made for something else."""
    return b"".join(_chunks(key, ciphertext, context))


def _chunks(key: bytes, ciphertext: bytes, context: bytes) -> Iterator[bytes]:
    if len(ciphertext) < HEADER_BYTES + TAG_BYTES:
        raise ValueError("cut")
    salt, commitment = ciphertext[:SALT_BYTES], ciphertext[SALT_BYTES:HEADER_BYTES]
    derived = HKDFExpand(hashes.SHA512(), 76, LABEL + salt + context).derive(key)
    if derived[44:] != commitment:
        raise ValueError("another key or context")
    cipher, nonce, size = AESGCM(derived[:32]), int.from_bytes(derived[32:44]), CHUNK_BYTES + TAG_BYTES
    sealed = ciphertext[HEADER_BYTES:]
    for number in range(len(sealed) // size):
        yield cipher.decrypt((nonce ^ number).to_bytes(12), sealed[number * size : (number + 1) * size], None)
    # The last chunk is the only short one, perhaps an empty one: without it the message was cut.
    number = len(sealed) // size
    yield cipher.decrypt((nonce ^ number).to_bytes(12), sealed[number * size :], None)


def _private(kem: str, raw: bytes) -> object:
    match kem:
        case "x25519":
            return X25519PrivateKey.from_private_bytes(raw)
        case "p256":
            return derive_private_key(int.from_bytes(raw), SECP256R1())
        case _:  # X-Wing: the 32 bytes are a seed
            expanded = hashlib.shake_256(raw).digest(96)
            ml_kem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
            return MLKEM768X25519PrivateKey(ml_kem, X25519PrivateKey.from_private_bytes(expanded[64:]))


def _public(kem: str, raw: bytes) -> object:
    match kem:
        case "x25519":
            return X25519PublicKey.from_public_bytes(raw)
        case "p256":
            return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), raw)
        case _:
            ml_kem = MLKEM768PublicKey.from_public_bytes(raw[:1184])
            return MLKEM768X25519PublicKey(ml_kem, X25519PublicKey.from_public_bytes(raw[1184:]))

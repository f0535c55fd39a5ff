"""Keys wrapped to devices: what is bound to what, which keys are refused, and what the reference openers open."""

import hashlib
import hmac
import os
from base64 import b64decode
from datetime import date
from uuid import UUID, uuid4

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.crypto.sealed import (
    DeviceKeyUnusable,
    check_public_key,
    key_info,
    output_context,
    thumbnail_context,
    wrap_key,
)
from broker.devices import PUBLIC_KEY_BYTES, WRAPPED_KEY_BYTES, Device, Kem
from tests.sealed import KeyPair, Vector, new_pair, opened_by_typescript, python_opener, typescript, vectors

OPENER = python_opener()
VECTORS = vectors()


def name_of(vector: Vector) -> str:
    return f"{vector.kem}-{vector.plaintext_bytes}"


def device_of(pair: KeyPair) -> Device:
    return Device(id=uuid4(), kem=pair.kem, public_key=pair.public_key, created_on=date(2026, 1, 1))


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_the_python_reference_opens_the_known_answers(vector: Vector) -> None:
    """Key, then plaintext, for every KEM and every length around a chunk."""
    key = OPENER.open_key(vector.kem, vector.private_key, vector.wrapped_key, vector.info.encode())
    plaintext = OPENER.open_sealed(key, vector.ciphertext, vector.context.encode())
    assert key == vector.key
    assert len(plaintext) == vector.plaintext_bytes
    assert hashlib.sha256(plaintext).hexdigest() == vector.plaintext_sha256


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_the_typescript_reference_opens_the_known_answers(vector: Vector) -> None:
    """HPKE written out over WebCrypto: another implementation than the one that sealed."""
    pair = KeyPair(kem=Kem(vector.kem), private_key=vector.private_key, public_key=vector.public_key)
    plaintext = opened_by_typescript(
        pair, vector.wrapped_key, vector.info.encode(), vector.ciphertext, vector.context.encode()
    )
    assert hashlib.sha256(plaintext).hexdigest() == vector.plaintext_sha256


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_the_known_answers_are_those_of_the_code(vector: Vector) -> None:
    """`info` and `context` are made of ids as the code and the references make them; every KEM is there."""
    assert {v.kem for v in VECTORS} == set(Kem)
    job, device, kem = vector.job_id, vector.device_id, Kem(vector.kem)
    assert key_info(job, vector.n, device, kem).decode() == vector.info
    assert output_context(job, vector.n).decode() == vector.context
    assert OPENER.key_info(str(job), vector.n, str(device), vector.kem).decode() == vector.info
    assert OPENER.output_context(str(job), vector.n) == output_context(job, vector.n)
    assert OPENER.thumbnail_context(str(job), vector.n) == thumbnail_context(job, vector.n)
    assert (len(vector.public_key), len(vector.wrapped_key)) == (PUBLIC_KEY_BYTES[kem], WRAPPED_KEY_BYTES[kem])


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_what_was_made_for_something_else_does_not_open(vector: Vector) -> None:
    """Another job, output, device or KEM in `info`, another private key, a changed byte: refused each time."""
    job, device, kem = vector.job_id, vector.device_id, Kem(vector.kem)
    wrong = [
        key_info(uuid4(), vector.n, device, kem),
        key_info(job, vector.n + 1, device, kem),
        key_info(job, vector.n, uuid4(), kem),
        key_info(job, vector.n, device, next(k for k in Kem if k is not kem)),
        b"",
    ]
    for info in wrong:
        with pytest.raises(InvalidTag):
            OPENER.open_key(vector.kem, vector.private_key, vector.wrapped_key, info)
    with pytest.raises(InvalidTag):
        OPENER.open_key(vector.kem, new_pair(kem).private_key, vector.wrapped_key, vector.info.encode())
    changed = bytearray(vector.wrapped_key)
    changed[-1] ^= 1
    with pytest.raises(InvalidTag):
        OPENER.open_key(vector.kem, vector.private_key, bytes(changed), vector.info.encode())


@pytest.mark.parametrize("kem", list(Kem))
def test_the_typescript_reference_refuses_the_same(kem: Kem) -> None:
    """Another output in `info` or `context`, and a ciphertext that was cut wherever."""
    vector = max((v for v in VECTORS if v.kem == kem), key=lambda v: v.plaintext_bytes)
    whole_chunks = (len(vector.ciphertext) - 57) // 16_400
    plain: dict[str, object] = {
        "kem": vector.kem,
        "privateKey": vector.private_key,
        "publicKey": vector.public_key,
        "wrapped": vector.wrapped_key,
        "info": vector.info.encode(),
        "ciphertext": vector.ciphertext,
        "context": vector.context.encode(),
    }
    for change in (
        {"info": key_info(vector.job_id, vector.n + 1, vector.device_id, kem)},
        {"context": output_context(vector.job_id, vector.n + 1)},
        {"ciphertext": vector.ciphertext[:-1]},
        {"ciphertext": vector.ciphertext[:40]},
        {"ciphertext": vector.ciphertext[: 56 + 16_400 * whole_chunks]},  # without the short one
    ):
        assert set(typescript("open", **{**plain, **change})) == {"refused"}


@pytest.mark.parametrize("context", [output_context(UUID(int=1), 0), thumbnail_context(UUID(int=2), 0), b""])
def test_one_blob_does_not_stand_for_another(context: bytes) -> None:
    """A server that swaps ciphertexts under one key is found out."""
    vector = VECTORS[0]
    with pytest.raises(ValueError, match="another key or context"):
        OPENER.open_sealed(vector.key, vector.ciphertext, context)


@pytest.mark.parametrize("kem", list(Kem))
def test_a_device_opens_what_is_wrapped_to_it(kem: Kem) -> None:
    """And hands it on to another one, of whatever KEM."""
    pair, other, job, key = new_pair(kem), new_pair(Kem.P256), uuid4(), bytearray(os.urandom(32))
    device, second = device_of(pair), device_of(other)
    wrapped = wrap_key(key, device, job=job, n=3)
    assert len(wrapped.wrapped) == WRAPPED_KEY_BYTES[kem]
    opened = OPENER.open_key(kem.value, pair.private_key, wrapped.wrapped, key_info(job, 3, device.id, kem))
    info = key_info(job, 3, second.id, Kem.P256)
    again = OPENER.wrap_key("p256", other.public_key, opened, info)
    assert OPENER.open_key("p256", other.private_key, again, info) == bytes(key)


@pytest.mark.parametrize("kem", list(Kem))
def test_a_browser_hands_a_key_on(kem: Kem) -> None:
    """What it wraps to another device, that one opens."""
    pair, key = new_pair(kem), os.urandom(32)
    info = key_info(uuid4(), 0, uuid4(), kem)
    wrapped = b64decode(typescript("wrap", kem=kem.value, publicKey=pair.public_key, key=key, info=info)["wrapped"])
    assert OPENER.open_key(kem.value, pair.private_key, wrapped, info) == key


@pytest.mark.parametrize("kem", list(Kem))
def test_a_browser_makes_a_device_of_its_own(kem: Kem) -> None:
    """With private keys that cannot be taken out: it opens what is wrapped to it, and its public key is one we take."""
    key = os.urandom(32)
    answer = typescript("fresh", kem=kem.value, key=key, info=b"of this output")
    assert b64decode(answer["key"]) == key
    public_key = b64decode(answer["publicKey"])
    device = Device(id=uuid4(), kem=kem, public_key=public_key, created_on=date(2026, 1, 1))
    assert len(wrap_key(bytearray(key), device, job=uuid4(), n=0).wrapped) == WRAPPED_KEY_BYTES[kem]


P256_BASE = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
UNUSABLE = {
    "x25519 short": (Kem.X25519, bytes(31)),
    "x25519 long": (Kem.X25519, bytes(33)),
    "x25519 of low order: zero": (Kem.X25519, bytes(32)),
    "x25519 of low order: one": (Kem.X25519, b"\x01" + bytes(31)),
    "p256 compressed": (Kem.P256, bytes.fromhex("03" + P256_BASE)),
    "p256 off the curve": (Kem.P256, bytes.fromhex("04" + P256_BASE) + bytes(32)),
    "p256 hybrid form": (Kem.P256, bytes.fromhex("06" + P256_BASE) + bytes(32)),
    "p256 at infinity": (Kem.P256, bytes(65)),
    "p256 is x25519": (Kem.P256, new_pair(Kem.X25519).public_key),
    "x25519 is p256": (Kem.X25519, new_pair(Kem.P256).public_key),
    "xwing short": (Kem.XWING, new_pair(Kem.XWING).public_key[:-1]),
    "xwing not reduced": (Kem.XWING, b"\xff" * 1184 + new_pair(Kem.X25519).public_key),
    "xwing of low order": (Kem.XWING, new_pair(Kem.XWING).public_key[:1184] + bytes(32)),
    "nothing": (Kem.X25519, b""),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_key_to_which_nothing_can_be_sealed_is_refused(name: str) -> None:
    """Wrong length, wrong curve, not on its curve, or a point that gives the secret away."""
    kem, raw = UNUSABLE[name]
    with pytest.raises(DeviceKeyUnusable):
        check_public_key(kem, raw)


@pytest.mark.parametrize("kem", list(Kem))
def test_a_good_key_is_taken(kem: Kem) -> None:
    """One of every KEM, as a device makes it."""
    check_public_key(kem, new_pair(kem).public_key)


def test_xwing_is_that_of_its_specification() -> None:
    """Decapsulated by hand: the combiner of X-Wing and the key schedule of RFC 9180, out of the single primitives."""
    vector = next(v for v in VECTORS if v.kem == Kem.XWING and v.plaintext_bytes > 1)
    enc, sealed = vector.wrapped_key[:1120], vector.wrapped_key[1120:]
    expanded = hashlib.shake_256(vector.private_key).digest(96)
    ours = X25519PrivateKey.from_private_bytes(expanded[64:])
    ss_m = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).decapsulate(enc[:1088])
    ss_x = ours.exchange(X25519PublicKey.from_public_bytes(enc[1088:]))
    mine = ours.public_key().public_bytes_raw()
    shared = hashlib.sha3_256(ss_m + ss_x + enc[1088:] + mine + bytes.fromhex("5c2e2f2f5e5c")).digest()
    suite = b"HPKE" + bytes.fromhex("647a00010002")

    def extract(salt: bytes, label: bytes, material: bytes) -> bytes:
        return hmac.digest(salt, b"HPKE-v1" + suite + label + material, "sha256")

    context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", vector.info.encode())
    secret = extract(shared, b"secret", b"")

    def expand(label: bytes, length: int) -> bytes:
        labeled = length.to_bytes(2) + b"HPKE-v1" + suite + label + context
        return hmac.digest(secret, labeled + b"\x01", "sha256")[:length]

    assert AESGCM(expand(b"key", 32)).decrypt(expand(b"base_nonce", 12), sealed, b"") == vector.key

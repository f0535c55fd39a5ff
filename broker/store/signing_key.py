"""The file with the key that signs receipts: made at first start, for its owner alone."""

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.receipts import Signer


def load_signer(path: Path, name: str) -> Signer:
    """Read the key (32 raw bytes), or make it; processes that start at once agree on one key."""
    if not path.exists():
        _make(path)
    return Signer(name, Ed25519PrivateKey.from_private_bytes(path.read_bytes()))


def _make(path: Path) -> None:
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(Ed25519PrivateKey.generate().private_bytes_raw())
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass  # another process was first; its key is the one
    finally:
        draft.unlink()

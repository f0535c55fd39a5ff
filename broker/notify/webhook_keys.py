"""The keys that sign webhooks (Standard Webhooks): `whsec_` for HMAC-SHA256 (v1), `whsk_` for Ed25519 (v1a)."""

import hashlib
import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.settings import SettingsInvalid

SECRET, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"
SECRET_BYTES = range(24, 65)
SEED_BYTES = 32
PAIR_BYTES = 64

Sign = Callable[[bytes], str]
"""Returns one signature of the header `webhook-signature`."""


class WebhookKeys:
    """Every key of the file: a receiver needs one of them, so that keys can be changed without a gap."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._signs = [_signing(line) for line in lines]
        if not self._signs:
            raise SettingsInvalid("LETHE_WEBHOOK_KEYS_FILE holds no key; `lethe webhook-key` makes some")

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """Sign `id.timestamp.body`; return the value of the header, a signature for each key."""
        content = f"{message_id}.{timestamp}.".encode() + body
        return " ".join(sign(content) for sign in self._signs)


def load_webhook_keys(path: Path) -> WebhookKeys:
    """Read a file with a key on each line; raise SettingsInvalid, which shows nothing of it."""
    try:
        lines = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsInvalid("LETHE_WEBHOOK_KEYS_FILE cannot be read") from exc
    return WebhookKeys(lines)


def new_keys() -> tuple[str, str, str]:
    """Make a secret for HMAC, a private key for Ed25519, and the public key that goes with that."""
    seed = os.urandom(SEED_BYTES)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    named = ((SECRET, os.urandom(SEED_BYTES)), (PRIVATE, seed + public), (PUBLIC, public))
    secret, private, shown = (prefix + b64encode(key).decode() for prefix, key in named)
    return secret, private, shown


def _signing(line: str) -> Sign:
    prefix, _, text = line.partition("_")
    match f"{prefix}_", _decoded(text):
        case "whsec_", key if len(key) in SECRET_BYTES:
            return partial(_hmac, key)
        case "whsk_", pair if len(pair) == PAIR_BYTES:
            return partial(_ed25519, _pair(pair))
        case _:
            raise SettingsInvalid(
                "LETHE_WEBHOOK_KEYS_FILE: a line is whsec_ and 24 to 64 bytes, or whsk_ and a private with its public "
                "key, in base64; `lethe webhook-key` makes them"
            )


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return b""


def _pair(pair: bytes) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.from_private_bytes(pair[:SEED_BYTES])
    if key.public_key().public_bytes_raw() != pair[SEED_BYTES:]:
        raise SettingsInvalid("LETHE_WEBHOOK_KEYS_FILE: a whsk_ key whose halves do not belong together")
    return key


def _hmac(key: bytes, content: bytes) -> str:
    return "v1," + b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def _ed25519(key: Ed25519PrivateKey, content: bytes) -> str:
    return "v1a," + b64encode(key.sign(content)).decode()

"""Operator keys: what the app's own server shows where no user is let in. Their hashes lie in a file."""

import hashlib
import hmac
import secrets
from pathlib import Path

from broker.account_errors import OperatorKeyRequired
from broker.settings import SettingsInvalid

PREFIX = "lethe_operator_"
HASH_CHARS = 64


def new_key(name: str) -> tuple[str, str]:
    """Make a key; return it, and the line that lets it in."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, f"{name} {hash_of(key)}"


def hash_of(key: str) -> str:
    """Hash a key for the file: SHA-256 suffices, since a key has 256 random bits."""
    return hashlib.sha256(key.encode()).hexdigest()


class OperatorKeys:
    """The operators that the file lists, by name; an empty path lists none, and nobody is let in."""

    def __init__(self, path: str) -> None:
        self._hashes = _read(Path(path)) if path else {}

    def require(self, header: str) -> str:
        """Return the name of the operator whose key is in an Authorization header; raise OperatorKeyRequired."""
        scheme, _, key = header.partition(" ")
        shown = hash_of(key.strip())
        names = [name for name, known in self._hashes.items() if hmac.compare_digest(known, shown)]
        if scheme.lower() != "bearer" or not names:
            raise OperatorKeyRequired
        return names[0]


def _read(path: Path) -> dict[str, str]:
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsInvalid("LETHE_OPERATOR_KEYS_FILE cannot be read") from exc
    if any(len(words) != 2 or len(words[1]) != HASH_CHARS for words in lines):
        raise SettingsInvalid("LETHE_OPERATOR_KEYS_FILE: each line is a name and a hash, as `lethe operator-key` says")
    if len({words[0] for words in lines}) != len(lines) or len({words[1] for words in lines}) != len(lines):
        raise SettingsInvalid("LETHE_OPERATOR_KEYS_FILE names an operator, or has a key, twice")
    return {words[0]: words[1] for words in lines}

"""The key under which subjects of sign-ins are hashed: of who signs in, that hash is all that is ever stored."""

import hashlib
import hmac
import re
from pathlib import Path

from broker.account_errors import LinksNotSetUp
from broker.settings import SettingsInvalid

_KEY = re.compile(r"[0-9a-f]{64}")


class Subjects:
    """Hashes subjects under the key in a file (64 hex digits); an empty path has none, and nobody is linked."""

    def __init__(self, path: str) -> None:
        self._key = load_subject_key(Path(path)) if path else b""

    def hash(self, subject: str) -> bytes:
        """
        Return HMAC-SHA256 of a subject, 32 bytes; raise LinksNotSetUp.

        The app sends a hash of its own; whether one could guess what is in it must not be left to the app.
        """
        if not self._key:
            raise LinksNotSetUp
        return hmac.digest(self._key, subject.encode(), hashlib.sha256)


def load_subject_key(path: Path) -> bytes:
    """Read the key, 32 bytes; raise SettingsInvalid."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsInvalid("LETHE_SUBJECT_KEY_FILE cannot be read") from exc
    if not _KEY.fullmatch(text):
        raise SettingsInvalid("LETHE_SUBJECT_KEY_FILE holds a key of 32 random bytes as 64 hex digits, and no more")
    return bytes.fromhex(text)

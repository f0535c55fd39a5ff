"""Anonymous users in Postgres: an id, the hash of a token, and two days. Further tokens come of links (links.py)."""

import hashlib
import secrets
import time
from uuid import UUID

import msgspec

from broker.store.database import Database
from broker.store.files import statements

SQL = statements("users")
REMEMBERED_S = 5.0
MOST_REMEMBERED = 10_000
TOKEN_PREFIX = "lethe_"  # noqa: S105 - a prefix for secret scanners, not a secret


class NewUser(msgspec.Struct, frozen=True, kw_only=True):
    """What a phone gets once and keeps; the token is stored nowhere else."""

    user_id: str
    token: str

    def __repr__(self) -> str:
        """Show the id alone."""
        return f"NewUser({self.user_id})"


class KnownUser(msgspec.Struct, frozen=True, kw_only=True):
    """Whose token it is, and a breach that concerns the user and was not shown yet."""

    user_id: str
    breach: UUID | None


class UserStore:
    """The rows of `users`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[bytes, tuple[KnownUser, float]] = {}

    async def mint(self) -> NewUser:
        """Make a user; 256 random bits are the whole credential."""
        new = NewUser(user_id=f"usr_{secrets.token_urlsafe(16)}", token=TOKEN_PREFIX + secrets.token_urlsafe(32))
        await self._database.rows(SQL["mint"], new.user_id, token_hash(new.token))
        return new

    async def find(self, token: str) -> str | None:
        """Return the id of the user with this token."""
        known = await self.look(token)
        return None if known is None else known.user_id

    async def look(self, token: str) -> KnownUser | None:
        """Return the user with this token; for a few seconds this process remembers the answer."""
        digest, now_s = token_hash(token), time.monotonic()
        known = self._known.get(digest)
        if known is not None and now_s - known[1] < REMEMBERED_S:
            return known[0]
        row = await self._database.row(SQL["find"], digest)
        self._known.pop(digest, None)
        if row is None:
            return None
        if len(self._known) >= MOST_REMEMBERED:
            del self._known[next(iter(self._known))]  # the first in is the oldest
        found = msgspec.convert(dict(row), KnownUser)
        self._known[digest] = found, now_s
        return found

    def forget_all(self) -> None:
        """Let this process look every token up again."""
        self._known.clear()

    async def forget_idle(self, *, idle_for_s: float) -> int:
        """Delete users who were not seen for long; return how many."""
        return len(await self._database.rows(SQL["forget_idle"], idle_for_s))


def token_hash(token: str) -> bytes:
    """Hash a token for storage: SHA-256 suffices, since a token has 256 random bits."""
    return hashlib.sha256(token.encode()).digest()

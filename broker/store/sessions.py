"""Sessions of browsers in Postgres: the hash of a random secret, and when it ends."""

import secrets
from datetime import datetime

import asyncpg
import msgspec

from broker.errors import Unauthenticated
from broker.store.database import Database
from broker.store.files import statements
from broker.store.users import KnownUser, token_hash

SQL = statements("sessions")
SESSION_S = 86_400
IDLE_S = 3_600
"""NIST SP 800-63B-4, section 2.2.3 (AAL2): a day in all, an hour without use."""
MOST_SESSIONS = 20
PREFIX = "lethe_session_"


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    """What a browser keeps in its cookie; the secret is stored nowhere else."""

    secret: str
    ends_at: datetime

    def __repr__(self) -> str:
        """Never show the secret."""
        return f"NewSession({self.ends_at})"


class SessionStore:
    """The rows of `sessions`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, token: str) -> NewSession:
        """Begin a session of whoever has this bearer token; raise Unauthenticated."""
        secret = PREFIX + secrets.token_urlsafe(32)
        values = (token_hash(token), token_hash(secret), SESSION_S, IDLE_S, MOST_SESSIONS)
        try:
            row = await self._database.row(SQL["begin"], *values)
        except asyncpg.ForeignKeyViolationError as exc:  # user or link went meanwhile
            raise Unauthenticated("nobody has this token any more") from exc
        if row is None:
            raise Unauthenticated("nobody has this token")
        return NewSession(secret=secret, ends_at=row["ends_at"])

    async def look(self, secret: str) -> KnownUser | None:
        """Return the user whose session this is, while it lasts; an ended one is known to no process."""
        row = await self._database.row(SQL["find"], token_hash(secret), IDLE_S)
        return None if row is None else msgspec.convert(dict(row), KnownUser)

    async def end(self, secret: str) -> None:
        """End one session; may be repeated."""
        await self._database.rows(SQL["end_one"], token_hash(secret))

    async def end_all(self, user_id: str) -> None:
        """End every session of a user; may be repeated."""
        await self._database.rows(SQL["end_all"], user_id)

    async def forget(self) -> None:
        """Delete sessions that ended by themselves."""
        await self._database.rows(SQL["forget"])

"""Links in Postgres: a sign-in reaches the same anonymous user on each device. Subjects come in as keyed hashes."""

import secrets

import asyncpg

from broker.account_errors import LinkNotFound, SubjectLinked, UserNotFound
from broker.store.database import Database
from broker.store.files import statements
from broker.store.users import TOKEN_PREFIX, NewUser, token_hash

SQL = statements("links")


class LinkStore:
    """The rows of `links` and `link_tokens`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def link(self, subject: bytes, user_id: str) -> bool:
        """Link a subject to a user; False where it was so already. Raises UserNotFound, SubjectLinked."""
        try:
            if await self._database.row(SQL["link"], subject, user_id) is not None:
                return True
        except asyncpg.ForeignKeyViolationError as exc:
            raise UserNotFound from exc
        row = await self._database.row(SQL["user_of"], subject)
        if row is None:
            raise UserNotFound
        if row["user_id"] != user_id:
            raise SubjectLinked
        return False

    async def add_token(self, subject: bytes) -> NewUser:
        """Make a token of the user to whom a subject is linked, for one more device; raise LinkNotFound."""
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        try:
            row = await self._database.row(SQL["add_token"], subject, token_hash(token))
        except asyncpg.ForeignKeyViolationError as exc:  # it ended meanwhile
            raise LinkNotFound from exc
        if row is None:
            raise LinkNotFound
        return NewUser(user_id=row["user_id"], token=token)

    async def unlink(self, subject: bytes) -> None:
        """End a link, with the tokens and sessions that came of it; raise LinkNotFound."""
        if await self._database.row(SQL["unlink"], subject) is None:
            raise LinkNotFound

    async def forget_tokens(self, *, idle_for_s: float) -> None:
        """Delete tokens that were not seen for long."""
        await self._database.rows(SQL["forget_tokens"], idle_for_s)

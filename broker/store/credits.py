"""Credits in Postgres: an account per user and its entries. Jobs hold and take theirs by triggers (migrations 6, 8)."""

from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from broker.account_errors import UserNotFound
from broker.store.database import Database
from broker.store.files import statements

SQL = statements("credits")


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What a user has, and how much of it jobs under way hold."""

    credits: int = 0
    held: int = 0


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an account: granted, held, captured, released or refunded."""

    kind: str
    credits: int
    at: datetime
    reference: str | None
    """The app's own id of a grant."""
    job: UUID | None
    """The job as its user knows it, while its record is kept."""


class CreditStore:
    """The rows of `accounts` and `credit_entries`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def grant(self, user_id: str, amount: int, *, reference: str) -> bool:
        """Add credits, once per reference; False where it was granted before. Raises UserNotFound."""
        try:
            return await self._database.row(SQL["grant"], user_id, amount, reference) is not None
        except asyncpg.ForeignKeyViolationError as exc:
            raise UserNotFound from exc

    async def account(self, user_id: str) -> Account:
        """Return a user's account; an empty one where nothing was ever granted."""
        row = await self._database.row(SQL["get"], user_id)
        return Account() if row is None else msgspec.convert(dict(row), Account)

    async def entries(self, user_id: str, *, limit: int) -> list[Entry]:
        """Return the newest entries of an account."""
        return [msgspec.convert(dict(row), Entry) for row in await self._database.rows(SQL["entries"], user_id, limit)]

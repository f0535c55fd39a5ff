"""Breaches in Postgres: declared once, never changed, and shown to everybody whom they concern."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg
import msgspec

from broker.account_errors import BreachNotFound
from broker.breaches import BreachFacts
from broker.store.database import Database
from broker.store.files import statements

SQL = statements("breaches")


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `breaches`; `told` is to how many of those concerned, and still there, it was shown."""

    id: UUID
    operator: str
    declared_at: datetime
    aware_at: datetime
    since: datetime | None
    until: datetime | None
    facts: BreachFacts
    concerned: int
    told: int


class BreachStore:
    """The rows of `breaches` and `breach_users`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def declare(
        self,
        facts: BreachFacts,
        *,
        operator: str,
        aware_at: datetime,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Breach:
        """Declare a breach to all users, or to those whose data was touched between two times."""
        told = msgspec.to_builtins(facts)
        row = await self._database.row(SQL["declare"], uuid4(), operator, aware_at, told, since, until)
        assert row is not None
        return _breach(row)

    async def find(self, breach_id: UUID) -> Breach:
        """Return a breach; raise BreachNotFound."""
        row = await self._database.row(SQL["find"], breach_id)
        if row is None:
            raise BreachNotFound
        return _breach(row)

    async def of_user(self, user_id: str) -> list[Breach]:
        """Return what concerns a user, newest first."""
        return [_breach(row) for row in await self._database.rows(SQL["of_user"], user_id)]

    async def told(self, user_id: str, shown: Sequence[UUID]) -> None:
        """Remember which breaches the app was given for its user."""
        await self._database.rows(SQL["told"], user_id, list(shown))


def _breach(row: asyncpg.Record) -> Breach:
    return msgspec.convert(dict(row), Breach)

"""Legal holds in Postgres: proposed by one operator, in force once another has confirmed, until somebody ends it."""

from datetime import datetime
from uuid import UUID, uuid4

import asyncpg
import msgspec

from broker.account_errors import HoldConflict, HoldNotFound, SecondOperatorRequired, UserNotFound
from broker.store.database import Database
from broker.store.files import statements

SQL = statements("holds")
CONFIRM_WITHIN_S = 86_400.0
MOST_SHOWN = 1_000


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `holds`."""

    id: UUID
    user_id: str
    reference: str
    proposed_by: str
    proposed_at: datetime
    confirm_by: datetime
    confirmed_by: str | None
    confirmed_at: datetime | None
    ended_by: str | None
    ended_at: datetime | None
    is_late: bool
    """Whether its time to be confirmed is over."""

    @property
    def state(self) -> str:
        """Where it stands, in one word."""
        if self.ended_at is not None:
            return "ended"
        if self.confirmed_at is not None:
            return "in_force"
        return "lapsed" if self.is_late else "proposed"


class HoldStore:
    """The rows of `holds`; Postgres itself refuses what a hold forbids (migration 11)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def propose(self, user_id: str, reference: str, *, operator: str) -> Hold:
        """Propose a hold, which keeps nothing yet; raise UserNotFound."""
        try:
            row = await self._database.row(SQL["propose"], uuid4(), user_id, reference, operator, CONFIRM_WITHIN_S)
        except asyncpg.ForeignKeyViolationError as exc:
            raise UserNotFound from exc
        assert row is not None
        return _hold(row)

    async def confirm(self, hold_id: UUID, *, operator: str) -> Hold:
        """Put a hold in force; raise SecondOperatorRequired, HoldConflict or HoldNotFound. Repeated, it is the same."""
        row = await self._database.row(SQL["confirm"], hold_id, operator)
        if row is not None:
            return _hold(row)
        found = await self.find(hold_id)
        if found.proposed_by == operator:
            raise SecondOperatorRequired
        if found.confirmed_by != operator or found.ended_at is not None:
            raise HoldConflict
        return found

    async def end(self, hold_id: UUID, *, operator: str) -> Hold:
        """End a hold, or take back one that was proposed; ended again, it is the same. Raises HoldNotFound."""
        await self._database.rows(SQL["end"], hold_id, operator)
        return await self.find(hold_id)

    async def find(self, hold_id: UUID) -> Hold:
        """Return a hold; raise HoldNotFound."""
        row = await self._database.row(SQL["find"], hold_id)
        if row is None:
            raise HoldNotFound
        return _hold(row)

    async def all(self) -> list[Hold]:
        """Return every hold, the newest thousand, newest first."""
        return [_hold(row) for row in await self._database.rows(SQL["all"], MOST_SHOWN)]

    async def in_force(self, user_id: str) -> list[Hold]:
        """Return what keeps a user's records now."""
        return [_hold(row) for row in await self._database.rows(SQL["in_force"], user_id)]


def _hold(row: asyncpg.Record) -> Hold:
    return msgspec.convert(dict(row), Hold)

"""The audit record in Postgres: triggers write it (migration 11); here it is read, sealed, and deleted at its time."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from broker.audit import Batch, Event
from broker.store.database import Connection, Database
from broker.store.files import statements

SQL = statements("audit")
MOST_IN_A_BATCH = 10_000
BATCHES_A_PAGE = 100
LOOK_AGAIN_S = 0.05
WRITERS_WITHIN_S = 15.0
"""Longer than any statement of ours may take."""

MakeBatch = Callable[[Batch | None, Sequence[Event], int], Batch]
"""Makes the batch of events, up to an id, that follows the newest one."""


class ShownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event as its user sees it; `job` is the id that the user chose, while there is a record of the job."""

    id: int
    at: datetime
    event: str
    job: UUID | None
    detail: str


class AuditStore:
    """The rows of `audit_events` and `audit_batches`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def output_served(self, job_id: UUID, what: str) -> None:
        """Record that an output is about to be sent; the one event that no write brings about by itself."""
        await self._database.rows(SQL["output_served"], job_id, what)

    async def of_user(self, user_id: str, *, before: int | None, limit: int) -> list[ShownEvent]:
        """Return what was done to a user's data, newest first."""
        rows = await self._database.rows(SQL["of_user"], user_id, before, limit)
        return [msgspec.convert(dict(row), ShownEvent) for row in rows]

    async def seal(self, make: MakeBatch) -> int:
        """Seal what is in no batch yet, ten thousand events at most; return how many, 0 also where others do it."""
        async with self._database.connection() as connection:
            drawn = await connection.fetchval(SQL["drawn"])
            await _until_written(connection)
            async with connection.transaction():
                if not await connection.fetchval(SQL["lock"]):
                    return 0
                head = _batch(await connection.fetchrow(SQL["head"]))
                rows = await connection.fetch(SQL["events"], head.last_id + 1 if head else 1, drawn, MOST_IN_A_BATCH)
                if not rows:
                    return 0
                events = [msgspec.convert(dict(row), Event) for row in rows]
                new = make(head, events, events[-1].id if len(events) == MOST_IN_A_BATCH else drawn)
                await connection.execute(
                    SQL["add_batch"], new.number, new.first_id, new.last_id, new.keep_until, new.note
                )
        return len(events)

    async def head(self) -> Batch | None:
        """Return the newest batch."""
        return _batch(await self._database.row(SQL["head"]))

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Yield every batch, oldest first."""
        after = 0
        while page := await self._database.rows(SQL["batches"], after, BATCHES_A_PAGE):
            for row in page:
                yield msgspec.convert(dict(row), Batch)
            after = page[-1]["number"]

    async def events(self, first_id: int, last_id: int) -> list[Event]:
        """Return the events of a batch, and any that was put among them."""
        rows = await self._database.rows(SQL["events"], first_id, last_id, MOST_IN_A_BATCH + 1)
        return [msgspec.convert(dict(row), Event) for row in rows]

    async def unsealed(self) -> tuple[int, float]:
        """Count events that are in no batch yet; say how old the oldest is, in seconds."""
        row = await self._database.row(SQL["unsealed"])
        assert row is not None
        return int(row["events"]), float(row["oldest_s"])

    async def delete_old(self) -> int:
        """Delete the events of batches past their time; return of how many batches."""
        return len(await self._database.rows(SQL["delete_old"], BATCHES_A_PAGE))


async def _until_written(connection: Connection) -> None:
    """Wait until whoever may have drawn an id already has committed or not: later no lower id can come up."""
    writing = {row["transaction"] for row in await connection.fetch(SQL["writing"])}
    async with asyncio.timeout(WRITERS_WITHIN_S):
        while writing:
            await asyncio.sleep(LOOK_AGAIN_S)
            writing &= {row["transaction"] for row in await connection.fetch(SQL["writing"])}


def _batch(row: asyncpg.Record | None) -> Batch | None:
    return None if row is None else msgspec.convert(dict(row), Batch)

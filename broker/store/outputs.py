"""Outputs in Postgres once their job is final: what a user can fetch, and when each one ends."""

from datetime import datetime
from uuid import UUID

import msgspec

from broker.store.database import Database
from broker.store.files import statements
from broker.store.jobs import BATCH

SQL = statements("outputs")


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a user's gallery: after this output come older ones."""

    finalized_at: datetime
    job_id: UUID
    n: int


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One output of a gallery; `job_id` is the id that its user chose."""

    job_id: UUID
    operation: str
    finalized_at: datetime
    outputs_until: datetime | None
    destroy_at: datetime | None
    n: int
    media_type: str
    size_bytes: int
    width: int
    height: int

    @property
    def until(self) -> datetime | None:
        """When it ends by itself, if it does."""
        return min((at for at in (self.outputs_until, self.destroy_at) if at is not None), default=None)

    @property
    def position(self) -> Position:
        """Where the page after it begins."""
        return Position(finalized_at=self.finalized_at, job_id=self.job_id, n=self.n)


class OutputStore:
    """The rows of `outputs`, apart from their making, which is a matter of custody and of the job."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delivered(self, job_id: UUID, n: int, *, grace_s: float) -> None:
        """Let an output that was sent to its end live for the grace time; idempotent, and never longer than before."""
        await self._database.rows(SQL["delivered"], job_id, n, grace_s)

    async def doom(self, job_id: UUID, n: int | None) -> None:
        """Serve an output (None: any of the job) no longer; the sweep destroys what its caller does not."""
        await self._database.rows(SQL["doom"], job_id, n)

    async def doom_all(self, user_id: str) -> list[tuple[UUID, int]]:
        """Do the same with all that a user has; return each."""
        return [(row["job_id"], row["n"]) for row in await self._database.rows(SQL["doom_all"], user_id)]

    async def destroyed(self, job_id: UUID, n: int | None) -> None:
        """Mark an output (None: each of the job) as destroyed."""
        await self._database.rows(SQL["destroyed"], job_id, n)

    async def due(self) -> list[tuple[UUID, int]]:
        """Return outputs past a time of their own."""
        return [(row["job_id"], row["n"]) for row in await self._database.rows(SQL["due"], BATCH)]

    async def gallery(self, user_id: str, *, before: Position | None, limit: int) -> list[Shown]:
        """Return what a user can fetch, newest first."""
        at, job_id, n = (before.finalized_at, before.job_id, before.n) if before else (None, None, None)
        rows = await self._database.rows(SQL["gallery"], user_id, at, job_id, n, limit)
        return [msgspec.convert(dict(row), Shown) for row in rows]

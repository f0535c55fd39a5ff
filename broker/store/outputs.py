"""Outputs in Postgres once their job is final: what a user can fetch, and when each one ends."""

from datetime import datetime
from uuid import UUID

import msgspec

from broker.devices import WrappedKey
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
    is_sealed: bool
    thumbnail_bytes: int
    wrapped: bytes | None
    """What opens it on the device that was asked for, where that device can."""

    @property
    def until(self) -> datetime | None:
        """When it ends by itself, if it does."""
        return min((at for at in (self.outputs_until, self.destroy_at) if at is not None), default=None)

    @property
    def position(self) -> Position:
        """Where the page after it begins."""
        return Position(finalized_at=self.finalized_at, job_id=self.job_id, n=self.n)


class OutputStore:
    """The rows of `outputs` and `output_keys`, apart from their making, which is a matter of custody and of the job."""

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

    async def gallery(
        self, user_id: str, *, before: Position | None, limit: int, device: UUID | None = None
    ) -> list[Shown]:
        """Return what a user can fetch, newest first, with what opens it on a device."""
        rows = await self._database.rows(SQL["gallery"], user_id, *_columns(before), limit, device)
        return [msgspec.convert(dict(row), Shown) for row in rows]

    async def missing(self, user_id: str, *, device: UUID, before: Position | None, limit: int) -> list[Position]:
        """Return the sealed outputs that a device cannot open yet, newest first."""
        rows = await self._database.rows(SQL["missing"], user_id, *_columns(before), limit, device)
        return [msgspec.convert(dict(row), Position) for row in rows]

    async def keys(self, job_id: UUID, n: int) -> list[WrappedKey]:
        """Return what opens an output, device by device."""
        return [msgspec.convert(dict(row), WrappedKey) for row in await self._database.rows(SQL["keys"], job_id, n)]

    async def add_key(self, job_id: UUID, n: int, device: UUID, wrapped: bytes) -> None:
        """Let one more device of the same user open an output; does nothing where it can, or nothing is left."""
        await self._database.rows(SQL["add_key"], job_id, n, device, wrapped)


def _columns(before: Position | None) -> tuple[object, object, object]:
    return (before.finalized_at, before.job_id, before.n) if before else (None, None, None)

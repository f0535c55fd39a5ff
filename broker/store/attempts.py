"""Attempts at providers in Postgres: committed before an order is sent, with the custody rows of what will be there."""

from collections.abc import Mapping, Sequence
from typing import TypeVar
from uuid import UUID

import asyncpg
import msgspec

from broker.attempts import PURGE_FOR_S, Attempt, Disposition, Ended
from broker.errors import IllegalTransition
from broker.jobs import Job
from broker.store.database import Database
from broker.store.files import statements
from providers.base import Deletes, Exposure, Handle, Part
from providers.failures import ProviderFailure

SQL = statements("attempts")
BATCH = 50
T = TypeVar("T", Attempt, Ended)


class NewAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that is about to be made, under the terms that hold for it."""

    id: UUID
    provider: str
    exposure: Exposure
    retention_s: int
    deletes: Deletes
    expected_usd: float
    parts: tuple[Part, ...]
    hook_hash: bytes | None = None


class AttemptStore:
    """The rows of `attempts`, and those of `custody` that are in providers' hands."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, job: Job, new: NewAttempt) -> None:
        """Commit the attempt and its custody rows; IllegalTransition when the job is not ours any more."""
        row = await self._database.row(
            SQL["begin"],
            new.id,
            job.id,
            job.fence,
            new.provider,
            new.exposure,
            new.retention_s,
            new.deletes,
            new.hook_hash,
            new.expected_usd,
            list(new.parts),
        )
        if row is None:
            raise IllegalTransition(f"attempt of {job.id} at fence {job.fence}")

    async def accepted(self, attempt_id: UUID, handle: Handle) -> None:
        """Keep a handle, whoever owns the job by now, and whether or not the attempt was ended meanwhile."""
        kept = msgspec.to_builtins(handle)
        await self._database.rows(SQL["accepted"], attempt_id, kept, bool(handle.id), PURGE_FOR_S)

    async def succeeded(self, attempt_id: UUID, *, cost_usd: float | None) -> Ended | None:
        """End an attempt well, without a cost at the expected one; None where it had ended before."""
        return await self._end(attempt_id, "succeeded", "", None, cost_usd, False)

    async def failed(self, attempt_id: UUID, failure: ProviderFailure) -> Ended | None:
        """End an attempt badly, withdrawing custody rows of what never left us; None where it had ended before."""
        cost_usd = 0.0 if failure.is_unsent else failure.cost_usd
        return await self._end(attempt_id, "failed", failure.kind, failure.after_s, cost_usd, failure.is_unsent)

    async def _end(self, *values: object) -> Ended | None:
        row = await self._database.row(SQL["end"], *values)
        return None if row is None else _read(row, Ended)

    async def failed_here(self, job: Job, attempt_id: UUID, *, provider: str, failure: ProviderFailure) -> Ended:
        """Remember an attempt of which nothing has left us; IllegalTransition when the job is not ours any more."""
        row = await self._database.row(
            SQL["failed_here"], attempt_id, job.id, job.fence, provider, failure.kind, failure.after_s
        )
        if row is None:
            raise IllegalTransition(f"attempt of {job.id} at fence {job.fence}")
        return _read(row, Ended)

    async def of_job(self, job_id: UUID) -> list[Attempt]:
        """Return every attempt of a job, oldest first."""
        return [_read(row, Attempt) for row in await self._database.rows(SQL["of_job"], job_id)]

    async def find_by_hook(self, hook_hash: bytes) -> UUID | None:
        """Return the open attempt that a hint with this token is for."""
        row = await self._database.row(SQL["find_by_hook"], hook_hash)
        return None if row is None else row["id"]

    async def dispose(
        self, job_id: UUID, dispositions: Mapping[int, Disposition], purge_again_s: Mapping[UUID, float | None]
    ) -> None:
        """State what is known of copies, by the ids of their rows, and when attempts are purged again (None: not)."""
        await self._database.rows(
            SQL["dispose"],
            job_id,
            list(dispositions),
            [d.evidence for d in dispositions.values()],
            [d.until_s for d in dispositions.values()],
            list(purge_again_s),
            list(purge_again_s.values()),
            PURGE_FOR_S,
        )

    async def due(self, providers: Sequence[str], *, within_s: float) -> list[Attempt]:
        """Take attempts that are to be purged now; nobody else gets them for `within_s`."""
        rows = await self._database.rows(SQL["due"], list(providers), within_s, BATCH)
        return [_read(row, Attempt) for row in rows]

    async def orphaned(self, *, after_s: float) -> list[Attempt]:
        """Take attempts whose purge nobody has finished, `after_s` past their time."""
        return [_read(row, Attempt) for row in await self._database.rows(SQL["orphaned"], after_s, BATCH)]

    async def pending(self) -> int:
        """Count the attempts that wait for a purge."""
        row = await self._database.row(SQL["pending"])
        assert row is not None
        return int(row["attempts"])


def _read(row: asyncpg.Record, into: type[T]) -> T:
    return msgspec.convert({**row, "kind": row["kind"] or None}, into)

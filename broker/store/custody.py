"""Custody rows in Postgres: opened before a copy is made, closed on evidence."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg
import msgspec

from broker.custody import Copy, Evidence, Held, NewCopy
from broker.errors import IllegalTransition
from broker.jobs import Job, Output, StoredUpload
from broker.store import columns
from broker.store.database import Database
from broker.store.files import statements
from broker.store.jobs import BATCH, GRACE_S

SQL = statements("custody")


class CustodyStore:
    """The rows of `custody` and `uploads`, and those of `outputs` as far as they say where copies are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, job: Job, copies: Sequence[NewCopy]) -> None:
        """Open rows for copies about to be made; IllegalTransition when the fence is stale."""
        rows = await self._database.rows(
            SQL["open"],
            job.id,
            job.fence,
            [c.domain for c in copies],
            *columns.of_copies(copies),
        )
        if len(rows) != len(copies):
            raise IllegalTransition(f"open {job.id} at fence {job.fence}")

    async def copies(self, job_id: UUID) -> list[Copy]:
        """Return every copy of a job, oldest first."""
        return [_copy(row) for row in await self._database.rows(SQL["copies"], job_id)]

    async def close(self, evidence: Mapping[int, Evidence]) -> None:
        """Close copies, each on its evidence; idempotent."""
        await self._database.rows(SQL["close"], list(evidence), [e.value for e in evidence.values()])

    async def close_and_list(self, job_id: UUID, evidence: Mapping[int, Evidence]) -> list[Copy]:
        """Close copies of a job on evidence, and return every copy of it as it then stands."""
        values = [e.value for e in evidence.values()]
        return [_copy(row) for row in await self._database.rows(SQL["close_and_list"], job_id, list(evidence), values)]

    async def release(self, job_id: UUID, held: Held, evidence: Evidence) -> None:
        """Record that a process has let go of what it held of a job under one fence."""
        await self._database.rows(SQL["release"], job_id, str(held.process), evidence, held.fence)

    async def ended_holders(self, refs: Sequence[str]) -> set[str]:
        """Return those processes whose lease ended the grace time ago."""
        rows = await self._database.rows(SQL["ended_holders"], [UUID(ref) for ref in refs], GRACE_S)
        return {row["ref"] for row in rows}

    async def stray_outputs(self, *, idle_for_s: float) -> list[UUID]:
        """Return final jobs with output copies that are past their time, or whose user was not seen for so long."""
        return [row["job_id"] for row in await self._database.rows(SQL["stray_outputs"], BATCH, idle_for_s)]

    async def held_by(self, process_id: UUID, *, before_s: float) -> list[tuple[UUID, Held]]:
        """Return each job of which a process holds something, or which it runs, for at least `before_s`."""
        rows = await self._database.rows(SQL["held_by"], process_id, before_s)
        return [(row["job_id"], Held(process=process_id, fence=row["fence"])) for row in rows]

    async def unreadable(self) -> dict[int, str]:
        """Return blobs whose store was silent when they were to be deleted, by the ids of their rows."""
        return {row["id"]: row["ref"] for row in await self._database.rows(SQL["unreadable"], BATCH)}

    async def swept(self, copy_id: int) -> None:
        """Record that an unreadable blob was deleted after all."""
        await self._database.rows(SQL["swept"], copy_id)

    async def uploads(self, job_id: UUID) -> list[StoredUpload]:
        """Return what a job was given: what was typed (-1), then its pictures (from 0 on) in order."""
        rows = await self._database.rows(SQL["uploads"], job_id)
        return [msgspec.convert(dict(row), StoredUpload) for row in rows]

    async def outputs(self, job_id: UUID) -> list[Output]:
        """Return the outputs of a job."""
        rows = await self._database.rows(SQL["outputs"], job_id)
        return [msgspec.convert(dict(row), Output) for row in rows]

    async def output_lost(self, job_id: UUID, n: int) -> None:
        """Record that an output cannot be opened any more, so that its job is not charged."""
        await self._database.rows(SQL["output_lost"], job_id, n)


def _copy(row: asyncpg.Record) -> Copy:
    return msgspec.convert(dict(row), Copy)

"""Jobs in Postgres: one verb per transition, each one guarded statement with the fence in its WHERE."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from broker.account_errors import CreditsRequired
from broker.custody import NewCopy
from broker.errors import HolderStillAlive, IllegalTransition, Unauthenticated
from broker.jobs import TRANSITIONS, Job, JobState, Outcome, Output
from broker.rights_errors import Erasing, Restricted
from broker.store import columns
from broker.store.database import Database
from broker.store.files import statements
from broker.store.job_values import Admission, NewJob, Usage, Waiting

SQL = statements("jobs")
SETTLING_LEASE_S = 10.0
GRACE_S = 2.0
BATCH = 50
MOST_AHEAD = 1000
REFUSED = {"user_erasing": Erasing, "user_restricted": Restricted}
USAGE = Usage.__struct_fields__


def sources(target: JobState) -> list[str]:
    """Return the states from which a job may come to `target`."""
    return [state.value for state, following in TRANSITIONS.items() if target in following]


class JobStore:
    """The rows of `jobs`; nobody else writes a state."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def receive(self, new: NewJob, copies: Sequence[NewCopy]) -> Job | None:
        """
        Commit the row and its custody rows; None when the id is taken.

        Raises Unauthenticated when the user is no more, Erasing and Restricted when the user said so in this moment.
        """
        try:
            return await self._one("receive", *_received(new, copies), new.id)
        except asyncpg.ForeignKeyViolationError as exc:
            raise Unauthenticated("nobody has this token any more") from exc
        except asyncpg.CheckViolationError as exc:
            if (refusal := REFUSED.get(str(exc.constraint_name))) is None:
                raise
            raise refusal from exc

    async def take_over(self, new: NewJob, copies: Sequence[NewCopy]) -> Job | None:
        """Put a later upload in the place of one that is still receiving; None when it is not receiving any more."""
        return await self._one("take_over", *_received(new, copies))

    async def admit(self, job: Job, admission: Admission) -> Job:
        """
        Queue a job whose uploads are whole, and list them.

        Raises IllegalTransition when another took over, CreditsRequired where others have spent what it costs.
        """
        try:
            return await self._admit(job, admission)
        except asyncpg.CheckViolationError as exc:
            if exc.constraint_name != "credits_suffice":
                raise
            raise CreditsRequired from exc

    async def _admit(self, job: Job, admission: Admission) -> Job:
        return await self._guarded(
            "admit",
            job.id,
            job.fence,
            admission.pictures[0].media_type if admission.pictures else "",
            sum(picture.size_bytes for picture in admission.pictures),
            admission.fingerprint,
            admission.start_within_s,
            admission.finish_within_s,
            [JobState.RECEIVING],
            *columns.of_uploads(admission.uploads),
            *columns.of_targets(admission.targets),
        )

    async def claim(self, job_id: UUID, owner: UUID) -> Job | None:
        """Make a queued job this process's own; None when somebody else has it or its time is up."""
        return await self._one("claim", job_id, owner, sources(JobState.RUNNING))

    async def retry(self, job: Job, *, pool: str = "", after_s: float = 0.0) -> Job:
        """Give a running job back to the queue of its pool, or another one, its buffers wiped."""
        return await self._guarded("retry", job.id, job.fence, [JobState.RUNNING], pool or job.pool, after_s)

    async def rescue(self, *, max_crashes: int) -> list[Job]:
        """Queue running jobs whose owner is dead; each counts a crash, and the last one is give_up()'s."""
        return await self._many("rescue", [JobState.RUNNING], GRACE_S, BATCH, max_crashes)

    async def give_up(self, owner: UUID, *, at_most: int, max_crashes: int) -> list[Job]:
        """Begin settling running jobs whose owner is dead, as so many were before."""
        return await self._many("give_up", [JobState.RUNNING], GRACE_S, at_most, max_crashes, owner, SETTLING_LEASE_S)

    async def begin_settling(
        self, job: Job, outcome: Outcome, *, owner: UUID, code: str = "", outputs: Sequence[Output] = ()
    ) -> Job:
        """Decide the outcome, once; raise IllegalTransition when the fence is stale or it is decided already."""
        return await self._guarded(
            "begin_settling",
            job.id,
            job.fence,
            outcome,
            code,
            owner,
            SETTLING_LEASE_S,
            [JobState.QUEUED, JobState.RUNNING],
            *columns.of_outputs(outputs),
            *columns.of_wrapped_keys(outputs),
        )

    async def overdue(self, *, at_most: int) -> list[Job]:
        """Return undecided jobs past their deadline."""
        return await self._many("overdue", at_most)

    async def resume_settling(self, owner: UUID, *, at_most: int) -> list[Job]:
        """Take over settling jobs whose settler died or gave up, first those that have waited longest."""
        return await self._many("resume_settling", owner, SETTLING_LEASE_S, at_most)

    async def postpone_settling(self, job: Job, *, delay_s: float) -> None:
        """Let somebody take the settling up again after `delay_s`."""
        await self._database.rows(SQL["postpone_settling"], job.id, job.fence, delay_s)

    async def finish(
        self,
        job: Job,
        *,
        note: str,
        outputs_for_s: float | None,
        provider_copies: str = "none",
        exposure: str = "local",
    ) -> Job:
        """
        Write final state and first receipt in one statement; raise HolderStillAlive while a copy is open.

        Outputs whose time is None have no end of their own.
        """
        try:
            return await self._guarded(
                "finish", job.id, job.fence, outputs_for_s, job.outcome, 1, note, provider_copies, exposure
            )
        except asyncpg.CheckViolationError as exc:
            raise HolderStillAlive(f"job {job.id}") from exc

    async def abandoned(self, owner: UUID) -> list[Job]:
        """Take over unfinished uploads whose broker died or whose time is up."""
        return await self._many("abandoned", owner, GRACE_S, BATCH, SETTLING_LEASE_S)

    async def cut(self, job: Job, owner: UUID) -> Job | None:
        """Take over one unfinished upload in order to discard it; None when its fence is stale or it is queued."""
        return await self._one("cut", job.id, owner, job.fence, SETTLING_LEASE_S)

    async def discard(self, job: Job) -> bool:
        """Delete the row of an unfinished upload; False when a copy is open, a blob unswept or the fence stale."""
        return await self._database.row(SQL["discard"], job.id, job.fence) is not None

    async def set_progress(self, job: Job, progress: float) -> int | None:
        """Write how far the attempt is; return the new version, None when the job is no longer ours."""
        row = await self._database.row(SQL["set_progress"], job.id, job.fence, progress)
        return None if row is None else int(row["version"])

    async def get(self, job_id: UUID) -> Job | None:
        """Return one job by its internal id."""
        return await self._one("get", job_id)

    async def find(self, user_id: str, public_id: UUID) -> Job | None:
        """Return one job of one user."""
        return await self._one("find", user_id, public_id)

    async def page(self, user_id: str, *, before: tuple[datetime, UUID] | None, limit: int) -> list[Job]:
        """Return a user's jobs, newest first."""
        at, job_id = before or (None, None)
        return await self._many("page", user_id, at, job_id, limit)

    async def look(self, user_id: str, public_id: UUID) -> tuple[Job | None, Usage]:
        """Return the job of this id, if there is one, and what else its user has going on."""
        row = await self._database.row(SQL["look"], user_id, public_id)
        assert row is not None
        usage = msgspec.convert({name: row[name] for name in USAGE}, Usage)
        return None if row["id"] is None else _job(row), usage

    async def ahead(self, job: Job) -> int:
        """Count the queued jobs that come before this one, up to a thousand."""
        row = await self._database.row(SQL["ahead"], job.id, MOST_AHEAD)
        assert row is not None
        return int(row["ahead"])

    async def unclaimed(self, *, after_s: float) -> list[Waiting]:
        """Return jobs that have been queued for a while."""
        rows = await self._database.rows(SQL["unclaimed"], after_s, BATCH)
        return [msgspec.convert(dict(row), Waiting) for row in rows]

    async def move(self, waiting: Waiting, pool: str) -> Job | None:
        """Let a queued job wait for another pool; None when somebody has it by now."""
        return await self._one("move", waiting.id, waiting.fence, pool)

    async def queue_ages(self) -> dict[str, float]:
        """Return how long the oldest queued job of each pool waits, seconds."""
        return {row["pool"]: row["oldest_s"] for row in await self._database.rows(SQL["queue_ages"])}

    async def running_of(self, owner: UUID) -> dict[UUID, int]:
        """Return the fences of the jobs that a process runs."""
        rows = await self._database.rows(SQL["running_of"], owner)
        return {row["id"]: row["fence"] for row in rows}

    async def forget(self, *, records_for_s: float) -> int:
        """Delete final jobs whose records are past their time; return how many."""
        return len(await self._database.rows(SQL["forgettable"], records_for_s, BATCH))

    async def snapshot(self) -> list[asyncpg.Record]:
        """Return (state, operation, pool, jobs, oldest_s) rows for the gauges."""
        return await self._database.rows(SQL["snapshot"])

    async def uploads_alive(self) -> tuple[int, float]:
        """Return how many uploads have an open copy, and the age of the oldest in seconds."""
        row = await self._database.row(SQL["uploads_alive"])
        assert row is not None
        return int(row["uploads"]), float(row["oldest_s"])

    async def _one(self, name: str, *values: object) -> Job | None:
        row = await self._database.row(SQL[name], *values)
        return None if row is None else _job(row)

    async def _many(self, name: str, *values: object) -> list[Job]:
        return [_job(row) for row in await self._database.rows(SQL[name], *values)]

    async def _guarded(self, name: str, job_id: UUID, fence: int, *values: object) -> Job:
        job = await self._one(name, job_id, fence, *values)
        if job is None:
            raise IllegalTransition(f"{name} {job_id} at fence {fence}")
        return job


def _received(new: NewJob, copies: Sequence[NewCopy]) -> tuple[object, ...]:
    return (
        new.user_id,
        new.public_id,
        new.operation,
        new.parameters,
        new.profile,
        new.pool,
        new.owner,
        new.within_s,
        new.price,
        *columns.of_copies(copies),
        new.is_sealed,
    )


def _job(row: asyncpg.Record) -> Job:
    return msgspec.convert(dict(row), Job)

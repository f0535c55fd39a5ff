"""The use case delete(): cancel a live job, destroy the outputs of a final one, and say what was done."""

import asyncio

import msgspec
import structlog

from broker.changes import Changes, heard
from broker.errors import IllegalTransition, JobNotFound, StillHeld, Unavailable
from broker.jobs import Job, JobState, Outcome
from broker.lease import Lease
from broker.settle import Settler
from broker.store.stores import Stores

log = structlog.get_logger()

WAIT_S = 5.0
LOOK_AGAIN_S = 0.5


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a DELETE has done."""

    job: Job
    canceled: bool
    outputs_destroyed: bool


class Cancellation:
    """Ends jobs at their user's word."""

    def __init__(self, stores: Stores, *, settler: Settler, changes: Changes, lease: Lease) -> None:
        self._jobs = stores.jobs
        self._settler = settler
        self._changes = changes
        self._lease = lease

    async def delete(self, job: Job) -> Verdict:
        """Cancel and destroy; idempotent. An unfinished upload is no job: it is discarded, and JobNotFound raised."""
        while job.state is JobState.RECEIVING:
            if await self._discard(job):
                raise JobNotFound
            job = await self._reread(job)  # queued, or taken over by a later upload, in this moment
        canceled = False
        while not job.is_final and job.state is not JobState.SETTLING:
            try:
                job = await self._jobs.begin_settling(
                    job, Outcome.CANCELED, owner=self._lease.process.id, code="canceled_by_user"
                )
                canceled = True
            except IllegalTransition:
                job = await self._reread(job)  # claimed, given back or decided in this moment
        if canceled:
            log.info("job_canceled", job_id=str(job.id))
            await self._changes.publish(job)
            job = await self._settler.settle_or_postpone(job) or job
        job = await self._until_final(job)
        if job.is_final:
            await self._settler.destroy_outputs(job.id)
        return Verdict(job=job, canceled=canceled, outputs_destroyed=job.is_final)

    async def _discard(self, job: Job) -> bool:
        cut = await self._jobs.cut(job, self._lease.process.id)
        if cut is None:
            return False
        await self._changes.publish(cut)
        try:
            await self._settler.discard(cut)
        except (StillHeld, Unavailable, TimeoutError) as exc:
            # Nobody can go on with it; the sweep takes up what is left.
            log.warning("discard_postponed", job_id=str(job.id), code=getattr(exc, "code", "timeout"))
        return True

    async def _until_final(self, job: Job) -> Job:
        try:
            async with asyncio.timeout(WAIT_S):
                with self._changes.watch(job.id) as changed:
                    while not (job := await self._reread(job)).is_final:
                        await heard(changed, within_s=LOOK_AGAIN_S)
        except TimeoutError:
            pass
        return job

    async def _reread(self, job: Job) -> Job:
        found = await self._jobs.get(job.id)
        if found is None:
            raise JobNotFound
        return found

"""A worker's own slots: one asyncio task per claimed job, so that no running job stays in arq."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import msgspec
import structlog

from broker.changes import Change
from broker.custody import Evidence, Held
from broker.errors import IllegalTransition, Unavailable
from broker.jobs import Job, JobState
from broker.metrics import AttemptResult
from broker.services import Services
from workers.outcomes import Ending, HandOver

log = structlog.get_logger()

RELEASE_AGAIN_S = 0.5
LOOK_AGAIN_S = 0.2
HAND_BACK_AFTER_S = 0.5

Attempt = Callable[[Job], Awaitable[Ending | HandOver]]
Conclude = Callable[[Job, Ending | HandOver], Awaitable[None]]
IsOrdering = Callable[[UUID], bool]
"""Whether a job was ordered of somebody whose answer alone can tell what became of it."""


class Runner:
    """Claims jobs while there is room, runs each under the lease, and stops those that are no longer ours."""

    def __init__(
        self, services: Services, *, attempt: Attempt, conclude: Conclude, is_ordering: IsOrdering, slots: int
    ) -> None:
        self._services = services
        self._attempt = attempt
        self._conclude = conclude
        self._is_ordering = is_ordering
        self._slots = slots
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts: dict[UUID, tuple[Job, asyncio.Task[None]]] = {}
        self._ours: set[UUID] = set()
        self._is_draining = False
        self._room = asyncio.Event()
        services.changes.listen(self._stop_decided)
        services.lease.renewed = self._reconcile
        services.lease.let_go = self._let_go

    @property
    def free(self) -> int:
        """How many more jobs can be taken."""
        return 0 if self._is_draining else self._slots - len(self._tasks)

    async def wait_for_room(self) -> None:
        """Return once a job can be taken."""
        while self.free <= 0 or not self._services.lease.is_valid:
            self._room.clear()
            try:
                async with asyncio.timeout(1.0):
                    await self._room.wait()
            except TimeoutError:
                pass

    async def take(self, job_id: UUID) -> None:
        """Claim a job and run it in a task of its own; silence when somebody else has it."""
        if self.free <= 0 or not self._services.lease.is_valid:
            return  # rescue rings again for what nobody claimed
        if job_id in self._ours:
            return
        self._ours.add(job_id)
        job: Job | None = None
        try:
            job = await self._services.stores.jobs.claim(job_id, self._services.lease.process.id)
        finally:
            if job is None:
                self._ours.discard(job_id)
        if job is not None:
            self._start(job)

    def _start(self, job: Job) -> None:
        log.info("job_claimed", job_id=str(job.id), operation=job.operation, attempt=job.attempts)
        task = asyncio.create_task(self._run(job))
        self._tasks.add(task)
        self._attempts[job.id] = job, task
        task.add_done_callback(partial(self._leave, job.id))

    async def drain(self, *, within_s: float, orders_within_s: float) -> None:
        """Take nothing more; let what runs finish, then hand back what has not, and orders once they can be resumed."""
        self._is_draining = True
        loop = asyncio.get_running_loop()
        orders_until_s = loop.time() + orders_within_s
        await self._any_ends(within_s, asyncio.ALL_COMPLETED)
        while self._tasks and loop.time() < orders_until_s:
            # What is not among the attempts any more is being decided, or handed back.
            for job, task in list(self._attempts.values()):
                if not self._is_ordering(job.id):
                    task.cancel()
            await self._any_ends(LOOK_AGAIN_S, asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _any_ends(self, within_s: float, how_many: str) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s, return_when=how_many)

    async def _run(self, job: Job) -> None:
        assert job.owner is not None
        held = Held(process=job.owner, fence=job.fence)
        try:
            ending = await self._stoppable(job)
            await self._conclude(job, ending)
        except IllegalTransition:
            self._count(job, AttemptResult.STALE)
            await self._release(job, held)
        except asyncio.CancelledError:
            await asyncio.shield(self._give_up(job, held))
            raise
        except Unavailable as exc:
            log.warning("attempt_interrupted", job_id=str(job.id), code=exc.code)
            await asyncio.sleep(HAND_BACK_AFTER_S)  # else the job would go round as fast as it can fail
            await self._hand_back(job, held)

    async def _stoppable(self, job: Job) -> Ending | HandOver:
        try:
            with self._services.lease.hold():
                return await self._attempt(job)
        finally:
            # From here on the job is ours to decide; what is heard of it now is our own doing.
            self._attempts.pop(job.id, None)

    async def _give_up(self, job: Job, held: Held) -> None:
        if self._is_draining:
            await self._hand_back(job, held)
        else:
            self._count(job, AttemptResult.STALE)
            await self._release(job, held)

    async def _hand_back(self, job: Job, held: Held) -> None:
        try:
            queued = await self._services.stores.jobs.retry(job)
            self._count(job, AttemptResult.RETRIED)
            await self._services.bell.ring(queued.id, fence=queued.fence, pool=queued.pool)
        except IllegalTransition:
            await self._release(job, held)
        except Unavailable:
            log.warning("job_not_handed_back", job_id=str(job.id))  # tried again with the next renewal

    async def _release(self, job: Job, held: Held) -> None:
        # Until this is written, whoever settles the job waits for our lease to end.
        while True:
            try:
                await self._services.stores.custody.release(job.id, held, Evidence.OVERWRITTEN)
                return await self._services.changes.publish(job)
            except Unavailable:
                await asyncio.sleep(RELEASE_AGAIN_S)

    def _count(self, job: Job, result: AttemptResult) -> None:
        self._services.metrics.attempts.labels(operation=job.operation, result=result).inc()

    def _leave(self, job_id: UUID, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._ours.discard(job_id)
        self._room.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("attempt_broke", job_id=str(job_id), exc_info=task.exception())

    def _stop_decided(self, change: Change) -> None:
        known = self._attempts.get(change.id)
        if known is not None and change.fence > known[0].fence and change.state is not JobState.RUNNING:
            self._stop(change.id)

    async def _reconcile(self) -> None:
        """Stop what is no longer ours, and hand back what is ours and not under way: an answer was lost."""
        if self._attempts:
            ours = await self._services.stores.jobs.running_of(self._services.lease.process.id)
            for job_id, (job, _) in list(self._attempts.items()):
                if ours.get(job_id) != job.fence:
                    self._stop(job_id)
        for job_id, held in await self._services.stores.custody.held_by(self._services.lease.process.id, before_s=0):
            job = None if job_id in self._ours else await self._services.stores.jobs.get(job_id)
            if job is not None and job_id not in self._ours:
                log.warning("job_unaccounted", job_id=str(job_id))
                await self._hand_back(msgspec.structs.replace(job, fence=held.fence), held)

    async def _let_go(self) -> None:
        for job_id in list(self._attempts):
            self._stop(job_id)

    def _stop(self, job_id: UUID) -> None:
        known = self._attempts.get(job_id)
        if known is not None:
            log.info("attempt_stopped", job_id=str(job_id))
            known[1].cancel()

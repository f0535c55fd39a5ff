"""Jobs that nobody works on: their worker died, their deadline passed, their settling stopped, their bell was lost."""

import asyncio
import random
from collections.abc import Awaitable, Coroutine

import structlog

from broker.errors import BrokerError, IllegalTransition, OperationUnavailable, QueueUnavailable, Refused
from broker.fleet import Fleet
from broker.jobs import Job, Outcome
from broker.lease import Lease
from broker.operations import OPERATIONS
from broker.queue import Bell
from broker.routing import Needs
from broker.settle import Settler
from broker.store.job_values import Waiting
from broker.store.stores import Stores

log = structlog.get_logger()

RING_AGAIN_S = 2.0
AT_ONCE = 16


class Rescue:
    """Runs in every broker and every worker, so that either side alone suffices."""

    def __init__(
        self,
        stores: Stores,
        *,
        settler: Settler,
        bell: Bell,
        fleet: Fleet,
        lease: Lease,
        every_s: float,
        max_crashes: int,
    ) -> None:
        self._jobs = stores.jobs
        self._settler = settler
        self._bell = bell
        self._fleet = fleet
        self._lease = lease
        self._every_s = every_s
        self._max_crashes = max_crashes
        self._busy = 0

    async def run(self) -> None:
        """Pass after pass until cancelled; a store that is away only makes a pass come later."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(self._every_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the passes
                await self._quietly(self.once(tasks))

    async def once(self, tasks: asyncio.TaskGroup) -> None:
        """
        One pass; settling goes on in `tasks`.

        No more is taken than can begin at once: what waited here would wait under a lease that runs out.
        """
        for job in await self._jobs.rescue(max_crashes=self._max_crashes):
            log.info("job_rescued", job_id=str(job.id), count=job.crashes)
            await self._ring(job)
        owner = self._lease.process.id
        for job in await self._jobs.give_up(owner, at_most=self._room, max_crashes=self._max_crashes):
            log.info("job_given_up", job_id=str(job.id), count=job.crashes)
            self._begin(tasks, self._settle(job))
        for job in await self._jobs.overdue(at_most=self._room):
            self._begin(tasks, self._expire(job))
        for job in await self._jobs.resume_settling(owner, at_most=self._room):
            self._begin(tasks, self._settler.settle_or_postpone(job))
        for waiting in await self._jobs.unclaimed(after_s=RING_AGAIN_S):
            await self._bell.ring(waiting.id, fence=waiting.fence, pool=waiting.pool)
            await self._move(waiting)

    async def _move(self, waiting: Waiting) -> None:
        """Let a job that nobody claims wait elsewhere: its pool is congested, or its workers are gone."""
        if waiting.was_tried or waiting.operation not in OPERATIONS:
            return
        try:
            pool = await self._fleet.pool_for(_needs(waiting), job_id=waiting.id)
        except (OperationUnavailable, Refused):
            return  # it waits for its deadline: a worker may come back
        job = await self._jobs.move(waiting, pool) if pool != waiting.pool else None
        if job is not None:
            log.info("job_moved", job_id=str(job.id), pool=pool)
            await self._ring(job)

    async def _expire(self, job: Job) -> None:
        try:
            settling = await self._jobs.begin_settling(
                job, Outcome.EXPIRED, owner=self._lease.process.id, code=_overdue_code(job)
            )
        except IllegalTransition:
            return
        await self._settle(settling)

    async def _settle(self, settling: Job) -> None:
        await self._settler.announce(settling)
        await self._settler.settle_or_postpone(settling)

    @property
    def _room(self) -> int:
        return AT_ONCE - self._busy

    def _begin(self, tasks: asyncio.TaskGroup, work: Coroutine[None, None, object]) -> None:
        self._busy += 1
        tasks.create_task(self._quietly(work)).add_done_callback(self._ended)

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._busy -= 1

    async def _quietly(self, work: Awaitable[object]) -> None:
        try:
            await work
        except BrokerError as exc:
            log.warning("rescue_failed", code=exc.code)
        except Exception:
            # One job that cannot be settled must not end the process, and with it every other job's rescue.
            log.exception("rescue_broke")

    async def _ring(self, job: Job) -> None:
        try:
            await self._bell.ring(job.id, fence=job.fence, pool=job.pool)
        except QueueUnavailable:
            log.warning("bell_not_rung", job_id=str(job.id))


def _needs(waiting: Waiting) -> Needs:
    # What was typed cannot be read here; who takes no text must not get the job, or it would go round between them.
    texts = dict.fromkeys(OPERATIONS[waiting.operation].texts if waiting.has_texts else (), "typed")
    return Needs(operation=waiting.operation, parameters={**waiting.parameters, **texts}, pictures=waiting.pictures)


def _overdue_code(job: Job) -> str:
    return "not_started_in_time" if job.started_at is None else "not_finished_in_time"

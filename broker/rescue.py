"""Jobs that nobody works on: their worker died, their deadline passed, their settling stopped, their bell was lost."""

import asyncio
import random
from collections.abc import Awaitable

import structlog

from broker.errors import BrokerError, IllegalTransition, QueueUnavailable
from broker.jobs import Job, JobState, Outcome
from broker.lease import Lease
from broker.queue import Bell
from broker.settle import Settler
from broker.store.stores import Stores

log = structlog.get_logger()

RING_AGAIN_S = 2.0
AT_ONCE = 16


class Rescue:
    """Runs in every broker and every worker, so that either side alone suffices."""

    def __init__(
        self, stores: Stores, *, settler: Settler, bell: Bell, lease: Lease, every_s: float, max_crashes: int
    ) -> None:
        self._jobs = stores.jobs
        self._settler = settler
        self._bell = bell
        self._lease = lease
        self._every_s = every_s
        self._max_crashes = max_crashes
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Pass after pass until cancelled; a store that is away only makes a pass come later."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(self._every_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the passes
                try:
                    await self.once(tasks)
                except BrokerError as exc:
                    log.warning("rescue_failed", code=exc.code)

    async def once(self, tasks: asyncio.TaskGroup) -> None:
        """One pass; settling goes on in `tasks`."""
        for job in await self._jobs.rescue():
            log.info("job_rescued", job_id=str(job.id), count=job.crashes)
            if job.crashes >= self._max_crashes:
                tasks.create_task(self._quietly(self._decide(job, Outcome.FAILED, "crashed_worker")))
            else:
                await self._ring(job)
        for job in await self._jobs.overdue():
            tasks.create_task(self._quietly(self._decide(job, Outcome.EXPIRED, _overdue_code(job))))
        for job in await self._jobs.resume_settling(self._lease.process.id):
            tasks.create_task(self._quietly(self._settler.settle_or_postpone(job)))
        for waiting in await self._jobs.unclaimed(after_s=RING_AGAIN_S):
            await self._bell.ring(waiting.id, fence=waiting.fence, pool=waiting.pool)

    async def _decide(self, job: Job, outcome: Outcome, code: str) -> None:
        try:
            settling = await self._jobs.begin_settling(job, outcome, owner=self._lease.process.id, code=code)
        except IllegalTransition:
            return
        await self._settler.announce(settling)
        await self._settler.settle_or_postpone(settling)

    async def _quietly(self, work: Awaitable[object]) -> None:
        async with self._slots:
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


def _overdue_code(job: Job) -> str:
    return "not_finished_in_time" if job.state is JobState.RUNNING else "not_started_in_time"

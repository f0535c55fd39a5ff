"""arq, woken by a list instead of its poll; its task claims a job, hands it to the runner, and ends."""

import asyncio
from typing import Any
from uuid import UUID

import msgspec
import structlog
from arq.worker import Worker, func
from redis.exceptions import RedisError

from broker.errors import BrokerError
from broker.queue import TASK, Bell, queue_name, wake_name
from broker.services import Services
from workers.runner import Runner

log = structlog.get_logger()

NET_S = 5
"""A lost token costs at most this long; rescue rings again after two seconds anyway."""
BACK_OFF_S = 0.5
AT_ONCE = 50
"""How many rings are answered side by side; each only claims a job."""


class WakingWorker(Worker):
    """Stock arq but for its loop: it reads the queue when a token arrives and the runner has room."""

    def __init__(self, services: Services, runner: Runner, *, pool: str) -> None:
        super().__init__(
            [func(_ring, name=TASK, keep_result=0, max_tries=1, timeout=10)],
            queue_name=queue_name(pool),
            redis_pool=services.redis,
            handle_signals=False,
            max_jobs=AT_ONCE,
            max_tries=1,
            keep_result=0,
            log_results=False,
            retry_jobs=False,
            job_serializer=msgspec.msgpack.encode,
            job_deserializer=msgspec.msgpack.decode,
            ctx={"runner": runner},
        )
        self._runner = runner
        self._bell: Bell = services.bell
        self._lethe_pool = pool
        self._answered = 0

    async def main(self) -> None:
        """Take jobs until cancelled; a Redis that is away only makes it wait."""
        while True:
            await self._runner.wait_for_room()
            try:
                await self._take()
            except (RedisError, OSError, TimeoutError):
                log.warning("queue_unavailable")
                await asyncio.sleep(BACK_OFF_S)

    async def run_job(self, job_id: str, score: int) -> None:
        """Answer a ring as arq does, and count it."""
        self._answered += 1
        await super().run_job(job_id, score)

    async def _take(self) -> None:
        await self._forget_started()
        self.queue_read_limit = min(self._runner.free, AT_ONCE)
        answered = self._answered
        await self._poll_iteration()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        # What was left over is for whoever has room; what nobody can take yet would only send the token round.
        if self._answered > answered and await self.pool.zcard(self.queue_name):
            await self._bell.wake(self._lethe_pool)
        if self._runner.free:
            redis: Any = self.pool
            await redis.blpop([wake_name(self._lethe_pool)], timeout=NET_S)

    async def _forget_started(self) -> None:
        # When Redis breaks off while arq starts a job, arq keeps its slot for ever: count anew, with nothing under way.
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        self.tasks.clear()
        await asyncio.sleep(0)  # arq's own count of what has just ended comes as a callback
        self.sem = asyncio.BoundedSemaphore(self.max_jobs + 1)
        self.job_counter = 0


async def _ring(ctx: dict[str, Any], job_id: str) -> None:
    runner: Runner = ctx["runner"]
    try:
        await runner.take(UUID(hex=job_id))
    except BrokerError as exc:
        log.warning("ring_failed", job_id=job_id, code=exc.code)

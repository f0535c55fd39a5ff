"""A worker whose runner only writes down when it was called; everything between the bell and it is the real engine."""

import asyncio
import time
from typing import Any
from uuid import UUID

from broker.guard import Guard
from broker.jobs import Job
from broker.log import configure_log
from broker.secret_memory import harden
from broker.services import Services, open_services
from broker.settings import load_settings
from broker.store.processes import Facts
from workers.engine import WakingWorker
from workers.outcomes import Ending, HandOver
from workers.runner import Runner

POOL = "listener"
HEARD = "bench:heard"


class Listening(Runner):
    """Claims nothing."""

    def __init__(self, services: Services) -> None:
        super().__init__(services, attempt=_never, conclude=_never, is_ordering=lambda _: False, slots=4)
        self._redis: Any = services.redis

    async def take(self, job_id: UUID) -> None:
        """Tell when this line ran."""
        heard_ns = time.monotonic_ns()
        await self._redis.rpush(HEARD, f"{job_id.hex} {heard_ns}")


async def _never(job: Job, ending: Ending | HandOver | None = None) -> Any:
    raise AssertionError(job.id, ending)


async def listen() -> None:
    """Work until killed."""
    guard = Guard.from_environment()
    async with open_services(load_settings(), role="worker", facts=Facts(pool=POOL), guard=guard) as services:
        await WakingWorker(services, Listening(services), pool=POOL).main()


if __name__ == "__main__":
    harden()
    configure_log()
    asyncio.run(listen())

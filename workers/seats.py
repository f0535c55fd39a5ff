"""This worker's places at providers: taken from what all workers share, kept while attempts run, given back after."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

from broker.slots import Slots

RENEW_EVERY_S = 10.0
LOOK_AGAIN_S = (0.05, 0.5)
WAIT_S = 5.0


class Seats:
    """Concurrency at each provider, over all workers; renewed together, so that waiting costs next to nothing."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held: dict[str, set[UUID]] = {}

    @asynccontextmanager
    async def taken(self, provider: str, attempt_id: UUID, *, limit: int) -> AsyncGenerator[bool]:
        """Hold a place inside the block; False when there was none for a while."""
        is_seated = await self._take(provider, attempt_id, limit=limit)
        held = self._held.setdefault(provider, set())
        if is_seated:
            held.add(attempt_id)
        try:
            yield is_seated
        finally:
            if is_seated:
                held.discard(attempt_id)
                await self._slots.release(provider, attempt_id)

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            for provider, held in list(self._held.items()):
                if held:
                    await self._slots.renew(provider, list(held))

    async def _take(self, provider: str, attempt_id: UUID, *, limit: int) -> bool:
        deadline_s = asyncio.get_running_loop().time() + WAIT_S
        pause_s, slowest_s = LOOK_AGAIN_S
        while not await self._slots.acquire(provider, attempt_id, limit=limit):
            if asyncio.get_running_loop().time() > deadline_s:
                return False
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            pause_s = min(pause_s * 2, slowest_s)
        return True

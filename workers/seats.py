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
    """
    Concurrency at each provider, over all workers; renewed together, so that waiting costs next to nothing.

    Whoever waits here for more than a provider takes in all asks nobody: Redis hears of the next in line alone.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held: dict[str, set[UUID]] = {}
        self._lines: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def taken(self, provider: str, attempt_id: UUID, *, limit: int) -> AsyncGenerator[bool]:
        """Hold a place inside the block; False when there was none for a while. A limit of 0 is none."""
        is_seated = await self._in_turn(provider, attempt_id, limit=limit)
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

    async def _in_turn(self, provider: str, attempt_id: UUID, *, limit: int) -> bool:
        if limit == 0:
            return await self._slots.acquire(provider, attempt_id, limit=0)
        try:
            async with asyncio.timeout(WAIT_S), self._lines.setdefault(provider, asyncio.Lock()):
                return await self._take(provider, attempt_id, limit=limit)
        except TimeoutError:
            await self._slots.release(provider, attempt_id)  # it may have come in this very moment
            return False

    async def _take(self, provider: str, attempt_id: UUID, *, limit: int) -> bool:
        pause_s, slowest_s = LOOK_AGAIN_S
        while not await self._slots.acquire(provider, attempt_id, limit=limit):
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            pause_s = min(pause_s * 2, slowest_s)
        return True

"""One Redis pub/sub channel: what is said there is a hint to look, never the truth; who waits for it looks anyway."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from redis.exceptions import RedisError

RECONNECT_S = 0.5
SILENCE_S = 5.0
PUBLISH_S = 2.0


class Channel:
    """
    One subscription per process, many waiters.

    With `wakes_in_doubt` all of them wake when something may have been missed, and now and then while Redis is away, to
    look for themselves.
    """

    def __init__(self, redis: Any, name: str, *, hear: Callable[[bytes], None], wakes_in_doubt: bool) -> None:
        self._redis = redis  # Any: redis-py's types leave most of this open
        self._name = name
        self._hear = hear
        self._wakes_in_doubt = wakes_in_doubt
        self._waiters: dict[UUID, set[asyncio.Event]] = {}

    async def publish(self, data: bytes) -> None:
        """Tell the others; a lost message costs time, not truth."""
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(PUBLISH_S):
                await self._redis.publish(self._name, data)

    @contextmanager
    def watch(self, awaited: UUID) -> Generator[asyncio.Event, None, None]:
        """Lend an event that is set whenever there may be news of this id; its user clears it."""
        event = asyncio.Event()
        self._waiters.setdefault(awaited, set()).add(event)
        try:
            yield event
        finally:
            events = self._waiters[awaited]
            events.discard(event)
            if not events:
                del self._waiters[awaited]

    def wake(self, awaited: UUID) -> None:
        """Let those who wait for this id look."""
        for event in self._waiters.get(awaited, ()):
            event.set()

    def wake_all(self) -> None:
        """Let every waiter look: something may have been missed."""
        for awaited in self._waiters:
            self.wake(awaited)

    async def run(self) -> None:
        """Listen until cancelled; reconnect when Redis goes away."""
        while True:
            with suppress(RedisError, OSError, TimeoutError):
                await self._subscribe()
            self._doubt()
            await asyncio.sleep(RECONNECT_S)

    async def _subscribe(self) -> None:
        async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(self._name)
            self._doubt()
            while True:
                message = await subscription.get_message(timeout=SILENCE_S)
                if message is None:
                    self._doubt()
                else:
                    self._hear(message["data"])

    def _doubt(self) -> None:
        if self._wakes_in_doubt:
            self.wake_all()

"""Tells every process that a job has changed (Redis pub/sub): a hint to look, never the truth."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

import msgspec
import structlog
from redis.exceptions import RedisError

from broker.jobs import Job, JobState

log = structlog.get_logger()

CHANNEL = "lethe:changes"
RECONNECT_S = 0.5
SILENCE_S = 5.0
PUBLISH_S = 2.0


class Change(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What the others are told: which job, and what it is now."""

    id: UUID
    version: int
    fence: int
    state: JobState


class Changes:
    """One subscription per process, many waiters; while Redis is away they wake now and then to look for themselves."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis  # Any: redis-py's types leave most of this open
        self._waiters: dict[UUID, set[asyncio.Event]] = {}
        self._listeners: list[Callable[[Change], None]] = []

    async def publish(self, job: Job) -> None:
        """Tell the others; a lost message costs time, not truth."""
        change = Change(id=job.id, version=job.version, fence=job.fence, state=job.state)
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(PUBLISH_S):
                await self._redis.publish(CHANNEL, msgspec.msgpack.encode(change))

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` for every change, in the loop's own thread."""
        self._listeners.append(listener)

    @contextmanager
    def watch(self, job_id: UUID) -> Generator[asyncio.Event, None, None]:
        """Lend an event that is set whenever the job may have changed; its user clears it."""
        event = asyncio.Event()
        self._waiters.setdefault(job_id, set()).add(event)
        try:
            yield event
        finally:
            events = self._waiters[job_id]
            events.discard(event)
            if not events:
                del self._waiters[job_id]

    def wake_all(self) -> None:
        """Let every waiter look: something may have been missed."""
        for events in self._waiters.values():
            for event in events:
                event.set()

    async def run(self) -> None:
        """Listen until cancelled; reconnect when Redis goes away."""
        while True:
            with suppress(RedisError, OSError, TimeoutError):
                await self._subscribe()
            self.wake_all()
            await asyncio.sleep(RECONNECT_S)

    async def _subscribe(self) -> None:
        async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(CHANNEL)
            self.wake_all()
            while True:
                message = await subscription.get_message(timeout=SILENCE_S)
                if message is None:
                    self.wake_all()
                else:
                    self._hand_on(message["data"])

    def _hand_on(self, data: bytes) -> None:
        try:
            change = msgspec.msgpack.decode(data, type=Change)
        except msgspec.DecodeError:
            log.warning("change_unreadable")
            return
        for event in self._waiters.get(change.id, ()):
            event.set()
        for listener in self._listeners:
            listener(change)


async def heard(changed: asyncio.Event, *, within_s: float) -> bool:
    """Wait for a watched change and clear it; False when there was none in this time."""
    try:
        async with asyncio.timeout(within_s):
            await changed.wait()
    except TimeoutError:
        return False
    changed.clear()
    return True

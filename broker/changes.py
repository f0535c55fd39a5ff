"""Tells every process that a job has changed: a hint to look, never the truth."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import msgspec
import structlog

from broker.channel import Channel
from broker.jobs import Job, JobState

log = structlog.get_logger()

CHANNEL = "lethe:changes"


class Change(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What the others are told: which job, and what it is now."""

    id: UUID
    version: int
    fence: int
    state: JobState


class Changes:
    """What jobs' watchers and the listeners of this process hear."""

    def __init__(self, redis: Any) -> None:
        self._channel = Channel(redis, CHANNEL, hear=self._hear, wakes_in_doubt=True)
        self._listeners: list[Callable[[Change], None]] = []

    async def publish(self, job: Job) -> None:
        """Tell the others; a lost message costs time, not truth."""
        change = Change(id=job.id, version=job.version, fence=job.fence, state=job.state)
        await self._channel.publish(msgspec.msgpack.encode(change))

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` for every change, in the loop's own thread."""
        self._listeners.append(listener)

    def watch(self, job_id: UUID) -> AbstractContextManager[asyncio.Event]:
        """Lend an event that is set whenever the job may have changed; its user clears it."""
        return self._channel.watch(job_id)

    def wake_all(self) -> None:
        """Let every waiter look: something may have been missed."""
        self._channel.wake_all()

    async def run(self) -> None:
        """Listen until cancelled."""
        await self._channel.run()

    def _hear(self, data: bytes) -> None:
        try:
            change = msgspec.msgpack.decode(data, type=Change)
        except msgspec.DecodeError:
            log.warning("change_unreadable")
            return
        self._channel.wake(change.id)
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

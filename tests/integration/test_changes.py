"""The word that a job has changed: a hint that wakes whoever waits, and may be lost without harm."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from broker.changes import CHANNEL, Change, Changes
from broker.jobs import JobState
from broker.queue import connect
from tests.lifecycle import eventually
from tests.stack import Servers


class Told:
    """Two processes' views: one tells, the other listens."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.changes = Changes(redis)
        self.heard: list[Change] = []
        self.changes.listen(self.heard.append)

    async def is_listening(self) -> bool:
        return bool((await self.redis.pubsub_numsub(CHANNEL))[0][1])

    async def has_heard(self, *changes: Change) -> None:
        async def heard() -> bool:
            return self.heard == list(changes)

        await eventually(heard)

    async def publish(self, change: Change) -> None:
        await self.redis.publish(CHANNEL, msgspec.msgpack.encode(change))


@pytest.fixture
async def told(servers: Servers) -> AsyncGenerator[Told]:
    redis = connect(servers.embedded.redis_url)
    told = Told(redis)
    running = asyncio.create_task(told.changes.run())
    await eventually(told.is_listening)
    yield told
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await redis.aclose(close_connection_pool=True)


def a_change() -> Change:
    return Change(id=uuid4(), version=3, fence=2, state=JobState.RUNNING)


async def test_who_watches_a_job_is_woken(told: Told) -> None:
    """Every watcher of that job, and of no other."""
    change = a_change()
    watch = told.changes.watch
    with watch(change.id) as one, watch(change.id) as two, watch(uuid4()) as other:
        other.clear()
        await told.publish(change)
        async with asyncio.timeout(2):
            await asyncio.gather(one.wait(), two.wait())
        assert not other.is_set()
    assert told.heard == [change]


async def test_nonsense_on_the_channel_is_ignored(told: Told) -> None:
    """Whoever can write to Redis cannot stop the listener."""
    for noise in (b"", b"\xff\xff", b"{}", msgspec.msgpack.encode([1, 2, 3, 4])):
        await told.redis.publish(CHANNEL, noise)
    change = a_change()
    await told.publish(change)
    await told.has_heard(change)


async def test_a_lost_connection_comes_back_and_wakes_everybody(told: Told) -> None:
    """What was missed meanwhile is looked for: every watcher is woken, and later words are heard."""
    change = a_change()
    with told.changes.watch(uuid4()) as watching:
        watching.clear()
        await told.redis.client_kill_filter(_type="pubsub")
        async with asyncio.timeout(5):
            await watching.wait()
    await eventually(told.is_listening)
    await told.publish(change)
    await told.has_heard(change)


async def test_nobody_is_left_watching(told: Told) -> None:
    """A watcher that leaves, also by an error, leaves nothing behind."""
    change = a_change()
    with pytest.raises(ValueError, match="stop"), told.changes.watch(change.id):
        raise ValueError("stop")
    with told.changes.watch(change.id) as again:
        await told.publish(change)
        async with asyncio.timeout(2):
            await again.wait()

"""Hints from providers: they wake whoever waits for that attempt, in whatever process, and nobody else."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import pytest

from broker.hints import CHANNEL, Hints
from broker.queue import connect
from tests.lifecycle import eventually
from tests.stack import Servers


@pytest.fixture
async def redis(servers: Servers) -> AsyncGenerator[Any]:
    client = connect(servers.embedded.redis_url)
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.fixture
async def hints(redis: Any) -> AsyncGenerator[Hints]:
    """A worker that listens."""
    hints = Hints(redis)
    running = asyncio.create_task(hints.run())
    await eventually(lambda: is_heard(redis))
    yield hints
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def is_heard(redis: Any) -> bool:
    return bool((await redis.pubsub_numsub(CHANNEL))[0][1])


async def test_a_hint_wakes_who_waits_for_the_attempt(hints: Hints, redis: Any) -> None:
    """Told by another process, heard by every watcher of that attempt and of no other; again when it comes again."""
    attempt = uuid4()
    broker = Hints(redis)
    with hints.watch(attempt) as one, hints.watch(attempt) as two, hints.watch(uuid4()) as other:
        for _ in range(2):
            await broker.publish(attempt)
            async with asyncio.timeout(2):
                await asyncio.gather(one.wait(), two.wait())
            one.clear()
            two.clear()
        assert not other.is_set()


async def test_nonsense_is_not_heard(hints: Hints, redis: Any) -> None:
    """Whoever can write to Redis wakes nobody by it, and stops nobody from listening."""
    attempt = uuid4()
    with hints.watch(attempt) as hinted:
        for noise in (b"", b"\xff", attempt.bytes * 2, str(attempt).encode()):
            await redis.publish(CHANNEL, noise)
        await hints.publish(uuid4())
        assert not hinted.is_set()
        await hints.publish(attempt)
        async with asyncio.timeout(2):
            await hinted.wait()


async def test_a_lost_connection_comes_back_without_a_word(hints: Hints, redis: Any) -> None:
    """Nobody is woken by it, or all providers would be asked about everything at once; later hints are heard."""
    attempt = uuid4()
    with hints.watch(attempt) as hinted:
        await redis.client_kill_filter(_type="pubsub")

        async def is_lost() -> bool:
            return not await is_heard(redis)

        await eventually(is_lost)
        await eventually(lambda: is_heard(redis))
        assert not hinted.is_set()
        await hints.publish(attempt)
        async with asyncio.timeout(2):
            await hinted.wait()


async def test_a_hint_without_redis_is_lost(tmp_path: Any) -> None:
    """It raises nothing: whoever waits asks in its own time."""
    client = connect(f"unix://{tmp_path}/nobody.sock")
    await Hints(client).publish(uuid4())
    await client.aclose(close_connection_pool=True)

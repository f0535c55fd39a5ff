"""The bell and the engine: one id, one ring, soon; and a Redis that breaks off costs no worker its slots."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisLost

from broker.jobs import Job
from broker.queue import queue_name, wake_name
from broker.services import Services
from broker.settings import Settings
from tests.lifecycle import claimed_job, eventually, run_sql
from tests.stack import pretend_worker, queued_job, running_services
from workers.engine import WakingWorker
from workers.outcomes import Ending, HandOver
from workers.runner import Runner

POOL = "gpu"

SLOTS = 4


class CountingRunner(Runner):
    """Writes down what it is handed, and claims nothing."""

    def __init__(self, services: Services) -> None:
        async def attempt(job: Job) -> Ending:
            raise AssertionError

        async def conclude(job: Job, ending: Ending | HandOver) -> None:
            raise AssertionError

        super().__init__(services, attempt=attempt, conclude=conclude, is_ordering=lambda _: False, slots=SLOTS)
        self.taken: list[UUID] = []
        self.taken_at_s: list[float] = []

    async def take(self, job_id: UUID) -> None:
        self.taken.append(job_id)
        self.taken_at_s.append(time.perf_counter())


@pytest.fixture
async def quiet(settings: Settings) -> AsyncGenerator[Services]:
    """Services whose rescue rings for nobody."""
    async with running_services(msgspec.structs.replace(settings, rescue_every_s=3600.0)) as services:
        yield services


@pytest.fixture
async def runner(quiet: Services) -> AsyncGenerator[CountingRunner]:
    runner = CountingRunner(quiet)
    engine = asyncio.create_task(WakingWorker(quiet, runner, pool=POOL).main())
    yield runner
    engine.cancel()
    await asyncio.gather(engine, return_exceptions=True)


async def test_a_ring_reaches_a_worker_soon(quiet: Services, runner: CountingRunner) -> None:
    """Half of the rings arrive within 20 ms on a machine that does other things too; arq's own poll takes 270."""
    waits_s: list[float] = []
    for _ in range(20):
        job_id = uuid4()
        began_s = time.perf_counter()
        await quiet.bell.ring(job_id, fence=1, pool=POOL)
        await eventually(lambda wanted=job_id: _has(runner, wanted))
        waits_s.append(runner.taken_at_s[-1] - began_s)
    assert sorted(waits_s)[10] < 0.02


async def _has(runner: CountingRunner, job_id: UUID) -> bool:
    return job_id in runner.taken


async def test_whose_clock_is_ahead_is_heard_all_the_same(
    quiet: Services, runner: CountingRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker's clock that is a minute before the worker's delays no job, and changes no order."""
    ahead, first, second = uuid4(), uuid4(), uuid4()
    with monkeypatch.context() as patched:
        patched.setattr("broker.queue.timestamp_ms", lambda: int(time.time() * 1000) + 60_000)
        await quiet.bell.ring(first, fence=1, pool="elsewhere")
        await quiet.bell.ring(ahead, fence=1, pool=POOL)
    await eventually(lambda: _has(runner, ahead))
    await quiet.bell.ring(second, fence=1, pool="elsewhere")
    redis: Any = quiet.redis
    assert await redis.zrange(queue_name("elsewhere"), 0, -1) == [f"{one.hex}:1".encode() for one in (first, second)]


async def test_a_ring_that_cannot_be_taken_yet_keeps_nobody_busy(quiet: Services, runner: CountingRunner) -> None:
    """Its taker was killed and arq holds it back for a while: the others wait as if nothing were there."""
    redis: Any = quiet.redis
    ring = f"{uuid4().hex}:1"
    await redis.set(f"arq:in-progress:{ring}", b"1", ex=15)
    await redis.zadd(queue_name(POOL), {ring: 1})
    before = (await redis.info("stats"))["total_commands_processed"]
    await quiet.bell.wake(POOL)
    await asyncio.sleep(1.0)
    assert (await redis.info("stats"))["total_commands_processed"] - before < 50
    assert await quiet.bell.depth(POOL) == 1
    assert runner.taken == []


async def test_a_ring_is_heard_once(quiet: Services, runner: CountingRunner) -> None:
    """The same job under the same fence rings once while it waits; a new fence rings anew."""
    job_id = uuid4()
    await asyncio.gather(*(quiet.bell.ring(job_id, fence=1, pool=POOL) for _ in range(10)))
    await eventually(lambda: _has(runner, job_id))
    await quiet.bell.ring(job_id, fence=2, pool=POOL)
    await eventually(lambda: _times(runner, job_id, 2))


async def _times(runner: CountingRunner, job_id: UUID, at_least: int) -> bool:
    return runner.taken.count(job_id) >= at_least


async def test_the_bell_carries_an_id_and_nothing_else(quiet: Services) -> None:
    """What lies in Redis for a job that waits: its id and its fence."""
    job_id = uuid4()
    await quiet.bell.ring(job_id, fence=7, pool=POOL)

    redis: Any = quiet.redis
    (member,) = await redis.zrange(queue_name(POOL), 0, -1)
    assert member == f"{job_id.hex}:7".encode()
    stored = await redis.get(f"arq:job:{job_id.hex}:7")
    decoded = msgspec.msgpack.decode(stored)
    assert (decoded["f"], decoded["a"], decoded["k"]) == ("ring", [job_id.hex], {})
    assert await quiet.bell.depth(POOL) == 1


async def test_many_rings_leave_one_token(quiet: Services) -> None:
    """The list on which workers wait does not grow, and ends by itself."""
    for _ in range(10):
        await quiet.bell.ring(uuid4(), fence=1, pool=POOL)
    redis: Any = quiet.redis
    assert await redis.llen(wake_name(POOL)) == 1
    assert 0 < await quiet.redis.ttl(wake_name(POOL)) <= 60


async def test_a_full_worker_leaves_jobs_in_the_queue(quiet: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free slot nothing is taken from Redis; with one, as much as there is room for."""
    runner = CountingRunner(quiet)
    free = 0
    monkeypatch.setattr(CountingRunner, "free", property(lambda self: free))
    engine = asyncio.create_task(WakingWorker(quiet, runner, pool=POOL).main())
    for _ in range(3):
        await quiet.bell.ring(uuid4(), fence=1, pool=POOL)
    await asyncio.sleep(0.1)
    assert runner.taken == []
    free = 1
    await eventually(lambda: _took(runner, 3))
    engine.cancel()
    await asyncio.gather(engine, return_exceptions=True)


async def _took(runner: CountingRunner, jobs: int) -> bool:
    return len(runner.taken) == jobs


async def test_a_redis_that_breaks_off_costs_no_slots(
    quiet: Services, runner: CountingRunner, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections lost again and again while arq starts a job: the worker takes the next one all the same."""
    lost = 0
    pipeline = quiet.redis.pipeline

    def broken(*args: object, **named: object) -> object:
        nonlocal lost
        lost += 1
        if lost <= 2 * SLOTS + 2:
            raise RedisLost
        return pipeline(*args, **named)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("workers.engine.BACK_OFF_S", 0.01)
    monkeypatch.setattr("workers.engine.NET_S", 1)
    first = uuid4()
    await quiet.bell.ring(first, fence=1, pool=POOL)
    await eventually(lambda: _has(runner, first))
    second = uuid4()
    await quiet.redis.zadd(queue_name(POOL), {f"{second.hex}:1": 1})
    await quiet.redis.psetex(
        f"arq:job:{second.hex}:1",
        60_000,
        msgspec.msgpack.encode({"t": None, "f": "ring", "a": [second.hex], "k": {}, "et": 1}),
    )
    monkeypatch.setattr(quiet.redis, "pipeline", broken)
    await quiet.bell.wake(POOL)

    await eventually(lambda: _has(runner, second))
    assert lost > 2 * SLOTS + 2


async def emptied(redis: Any) -> None:
    await redis.flushall()


async def test_a_lost_bell_is_rung_again(services: Services, settings: Settings) -> None:
    """Redis emptied: a job that nobody claimed for two seconds is rung for again."""
    job = await queued_job(services)
    await emptied(services.redis)
    await run_sql(settings, "UPDATE jobs SET queued_at = now() - interval '2 seconds'")

    async def is_rung() -> bool:
        return bool(await services.redis.zscore(queue_name(POOL), f"{job.id.hex}:{job.fence}"))

    await eventually(is_rung)


async def test_a_running_job_is_not_in_redis(services: Services) -> None:
    """Two thousand running jobs cost Redis nothing: rescue rings for queued ones alone."""
    job = await claimed_job(services)
    await emptied(services.redis)
    await pretend_worker(services)
    assert [w.id for w in await services.stores.jobs.unclaimed(after_s=0)] == []
    assert not await services.redis.zcard(queue_name(POOL)), job.id


async def test_nothing_of_a_ring_stays_in_redis(quiet: Services, runner: CountingRunner) -> None:
    """arq keeps no result, neither of a ring that was heard nor of one that raised, and no word of what it called."""
    redis: Any = quiet.redis
    heard, broken = uuid4(), "no-job-id"
    await quiet.bell.ring(heard, fence=1, pool=POOL)
    payload = msgspec.msgpack.encode({"t": None, "f": "ring", "a": [broken], "k": {}, "et": 1})
    await redis.psetex("arq:job:broken", 60_000, payload)
    await redis.zadd(queue_name(POOL), {"broken": 1})
    await quiet.bell.wake(POOL)

    async def is_taken() -> bool:
        return not await redis.exists(f"arq:job:{heard.hex}:1", "arq:job:broken")

    await eventually(is_taken)
    assert runner.taken == [heard]
    assert await redis.keys("arq:*") == []

"""The engine: from ringing to a worker's first line, and plain arq on its default settings beside it."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from arq.connections import ArqRedis

from bench.listener import HEARD, POOL
from bench.plain_arq import HEARD as ARQ_HEARD
from bench.plain_arq import QUEUE, plain_arq
from bench.report import Budget, Chapter, Figure, at_most, percentile
from bench.scale import Scale
from bench.stack import Stack
from broker.queue import Bell

FIRST_WITHIN_S = 30
BUDGETS = (at_most(3), at_most(10))


async def ring(stack: Stack, scale: Scale) -> Chapter:
    """Ring for one job at a time and read from the worker when its first line ran."""
    bell = Bell(stack.redis)

    async def heard() -> float:
        job_id = uuid4()
        return await _timed(stack.redis, HEARD, job_id.hex, bell.ring(job_id, fence=1, pool=POOL))

    async with stack.module("bench.listener"):
        await heard()
        rounds = [await _round(heard, scale.rings, apart_s=(0.005, 0.025)) for _ in range(scale.rounds)]
    method = (
        "from `Bell.ring()` in one process to the first line of what it makes a worker process run, on the machine's "
        "monotonic clock; engine and loops of the worker are the real ones, its runner only writes down the time; "
        f"{scale.rings} rings a round, 5 to 25 ms apart."
    )
    return _chapter("Ring to first line, idle system", "ring → worker's first line", rounds, method, BUDGETS)


async def arq_latency(stack: Stack, scale: Scale) -> Chapter:
    """The same with stock arq on its default settings."""
    async with plain_arq(stack) as redis:

        async def heard() -> float:
            number = uuid4().hex
            return await _timed(redis, ARQ_HEARD, number, redis.enqueue_job("first_line", number))

        await heard()
        rounds = [await _round(heard, scale.arq_rings, apart_s=(0, 0.5)) for _ in range(scale.rounds)]
    method = (
        "from `enqueue_job()` to the function's first line; stock `arq.Worker` and client on default settings (poll "
        f"0.5 s, 10 jobs at once); {scale.arq_rings} jobs a round, 0 to 0.5 s apart."
    )
    return _chapter("Plain arq, idle system", "plain arq: enqueue → first line", rounds, method)


async def arq_throughput(stack: Stack, scale: Scale) -> Chapter:
    """How many functions that do nothing stock arq runs in a second."""
    async with plain_arq(stack) as redis:
        rounds = [await _arq_per_s(redis, scale.arq_jobs) for _ in range(scale.rounds + 1)]
    method = (
        f"{scale.arq_jobs} functions that do nothing, from the first enqueue to the empty queue, one stock worker "
        "process on default settings; no upload, encryption, custody, settling or receipt."
    )
    figure = Figure(name="plain arq: no-op functions", unit="jobs/s", rounds=tuple(rounds[1:]), method=method)
    return Chapter(title="Plain arq, throughput", figures=(figure,))


async def _arq_per_s(redis: ArqRedis, count: int) -> float:
    before_s = time.perf_counter()
    for number in range(count):
        await redis.enqueue_job("nothing", str(number))
    while await redis.zcard(QUEUE):  # noqa: ASYNC110 -- another process empties it
        await asyncio.sleep(0.01)
    return count / (time.perf_counter() - before_s)


async def _round(heard: Callable[[], Awaitable[float]], count: int, *, apart_s: tuple[float, float]) -> list[float]:
    times_ms: list[float] = []
    for _ in range(count):
        await asyncio.sleep(random.uniform(*apart_s))
        times_ms.append(await heard())
    return times_ms


async def _timed(redis: ArqRedis, heard: str, name: str, ringing: Awaitable[object]) -> float:
    """Ring, and return the milliseconds from before it until the line that ran wrote down its time."""
    rung_ns = time.monotonic_ns()
    await ringing
    client: Any = redis
    answer: tuple[bytes, bytes] | None = await client.blpop([heard], timeout=FIRST_WITHIN_S)
    told, heard_ns = answer[1].decode().split() if answer else ("", "0")
    if told != name:
        raise RuntimeError("the worker did not answer")
    return (int(heard_ns) - rung_ns) / 1e6


def _chapter(
    title: str, name: str, rounds: list[list[float]], method: str, budgets: tuple[Budget | None, ...] = (None, None)
) -> Chapter:
    figures = (
        Figure(
            name=f"{name}, p{percent}",
            unit="ms",
            rounds=tuple(percentile(times_ms, percent) for times_ms in rounds),
            method=words,
            budget=budget,
        )
        for percent, words, budget in zip((50, 99), (method, "as above."), budgets, strict=True)
    )
    return Chapter(title=title, figures=tuple(figures))

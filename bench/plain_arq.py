"""Stock arq on its default settings, for comparison: its worker process, and a client for it."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from arq.connections import ArqRedis
from arq.constants import default_queue_name
from arq.worker import Worker
from redis.asyncio import ConnectionPool

from bench.stack import Stack

HEARD = "bench:arq:heard"
QUEUE = default_queue_name


async def first_line(ctx: dict[str, Any], number: str) -> None:
    """Tell when this line ran."""
    heard_ns = time.monotonic_ns()
    await ctx["redis"].rpush(HEARD, f"{number} {heard_ns}")


async def nothing(ctx: dict[str, Any], number: str) -> None:
    """Do nothing."""
    del ctx, number


@asynccontextmanager
async def plain_arq(stack: Stack) -> AsyncGenerator[ArqRedis]:
    """Run a stock worker; yield a stock client."""
    redis = connect(stack.settings.redis_url)
    try:
        async with stack.module("bench.plain_arq", stack.settings.redis_url):
            yield redis
    finally:
        await redis.aclose(close_connection_pool=True)


def connect(url: str) -> ArqRedis:
    """Make arq's client as arq makes it, from a URL."""
    make_pool = cast("Callable[..., Any]", ConnectionPool.from_url)  # pyright: ignore[reportUnknownMemberType]
    return ArqRedis(make_pool(url))


async def work(url: str) -> None:
    """Be a stock worker until killed."""
    worker = Worker([first_line, nothing], redis_pool=connect(url))
    await worker.async_run()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))

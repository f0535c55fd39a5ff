"""The bell: tells arq that a job waits. It carries a job id and nothing else; Postgres is the truth."""

import asyncio
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import msgspec
from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from broker.errors import QueueUnavailable
from broker.store.files import script

TASK = "ring"
WAKE_LIFETIME_S = 60
TIMEOUT_S = 2.0


def queue_name(pool: str) -> str:
    """Return the name of arq's sorted set for a pool of workers."""
    return f"lethe:queue:{pool}"


def wake_name(pool: str) -> str:
    """Return the name of the list on which the workers of a pool wait."""
    return f"lethe:wake:{pool}"


def connect(redis_url: str) -> ArqRedis:
    """Make arq's client: msgspec instead of pickle, every wait bounded."""
    # redis-py types its keywords as unknown.
    make_pool = cast("Callable[..., Any]", ConnectionPool.from_url)  # pyright: ignore[reportUnknownMemberType]
    pool = make_pool(redis_url, socket_connect_timeout=TIMEOUT_S, max_connections=200)
    return ArqRedis(
        pool, job_serializer=msgspec.msgpack.encode, job_deserializer=msgspec.msgpack.decode, default_queue_name=""
    )


class Bell:
    """Rings for one job at a time; every failure of Redis raises QueueUnavailable."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self._wake = redis.register_script(script("wake"))

    async def ring(self, job_id: UUID, *, fence: int, pool: str) -> None:
        """
        Tell the workers of a pool that a job waits.

        arq drops an id that it already has, so that the id names the fence: a retry or a rescue is a new ring.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._redis.enqueue_job(
                    TASK, job_id.hex, _job_id=f"{job_id.hex}:{fence}", _queue_name=queue_name(pool)
                )
                await self.wake(pool)
        except (RedisError, OSError, TimeoutError) as exc:
            raise QueueUnavailable from exc

    async def wake(self, pool: str) -> None:
        """Put a token for one waiting worker."""
        await self._wake(keys=[wake_name(pool)], args=[WAKE_LIFETIME_S])

    async def depth(self, pool: str) -> int:
        """Count the ids in arq's sorted set."""
        return cast("int", await self._redis.zcard(queue_name(pool)))

    async def ping(self) -> None:
        """Raise QueueUnavailable when Redis does not answer."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._redis.execute_command("PING")  # pyright: ignore[reportUnknownMemberType]
        except (RedisError, OSError, TimeoutError) as exc:
            raise QueueUnavailable from exc

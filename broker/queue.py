"""The bell: tells arq that a job waits. It carries a job id and nothing else; Postgres is the truth."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import msgspec
from arq.connections import ArqRedis
from arq.constants import job_key_prefix, result_key_prefix
from arq.jobs import serialize_job
from arq.utils import timestamp_ms
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from broker.errors import QueueUnavailable
from broker.store.files import script

TASK = "ring"
RING_LIFETIME_MS = 3600 * 1000
WAKE_LIFETIME_S = 60
FRESH_S = 0.5
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
        self._redis: Any = redis  # redis-py's own types leave most of this open
        self._wake = redis.register_script(script("wake"))
        self._ring = redis.register_script(script("ring"))
        self._answered_s = float("-inf")

    async def ring(self, job_id: UUID, *, fence: int, pool: str) -> None:
        """
        Tell the workers of a pool that a job waits.

        arq drops an id that it already has, so that the id names the fence: a retry or a rescue is a new ring.
        """
        ring_id = f"{job_id.hex}:{fence}"
        payload = serialize_job(TASK, (job_id.hex,), {}, None, timestamp_ms(), serializer=msgspec.msgpack.encode)
        keys = [job_key_prefix + ring_id, result_key_prefix + ring_id, queue_name(pool), wake_name(pool)]
        await self._ask(self._ring(keys=keys, args=[ring_id, payload, RING_LIFETIME_MS, WAKE_LIFETIME_S]))

    async def wake(self, pool: str) -> None:
        """Put a token for one waiting worker, unless one is there."""
        await self._ask(self._wake(keys=[wake_name(pool)], args=[WAKE_LIFETIME_S]))

    async def depth(self, pool: str) -> int:
        """Count the ids in arq's sorted set."""
        return cast("int", await self._ask(self._redis.zcard(queue_name(pool))))

    async def ping(self) -> None:
        """Raise QueueUnavailable when Redis does not answer, or has not within the last half second."""
        if time.monotonic() - self._answered_s > FRESH_S:
            await self._ask(self._redis.execute_command("PING"))

    async def _ask(self, command: Any) -> object:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await command
        except (RedisError, OSError, TimeoutError) as exc:
            self._answered_s = float("-inf")
            raise QueueUnavailable from exc
        self._answered_s = time.monotonic()
        return answer

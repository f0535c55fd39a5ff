"""What no test may leave behind: a planted secret in Redis, Postgres or a log line, or a Redis key that never ends."""

import secrets
from collections.abc import Iterable
from typing import Any, cast

import asyncpg
import redis

CANARY = f"canary{secrets.token_hex(12)}"
"""Stands in every body of upload_bytes(), and nowhere else."""

_planted: set[str] = {CANARY}

# arq's own sorted set: it holds ids of jobs that wait, and goes when it is empty.
QUEUE_PREFIX = b"lethe:queue:"


def plant(secret: str) -> str:
    """Let every later check of this test look for the secret too."""
    _planted.add(secret)
    return secret


def forget_planted() -> None:
    _planted.intersection_update({CANARY})


def leaks(texts: Iterable[str]) -> list[str]:
    """Those texts in which a planted secret stands, as it is or in hex."""
    return [text for text in texts if any(needle in text for needle in _needles())]


def redis_faults(url: str) -> list[str]:
    """What of Redis' content must not be there; everything is gone afterwards, so that the next test starts clean."""
    client = cast("Any", redis).Redis.from_url(url)
    try:
        keys: list[bytes] = list(client.scan_iter(count=1000))
        endless = [key for key in keys if client.ttl(key) == -1 and not key.startswith(QUEUE_PREFIX)]
        held = [f"{key!r} {_value(client, key)!r}" for key in keys]
        client.flushall()
    finally:
        client.close()
    return [f"redis: {key!r} never ends" for key in endless] + [f"redis: {text}" for text in leaks(held)]


async def database_faults(dsn: str) -> list[str]:
    """The tables in which a planted secret stands."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        looks = [
            f"SELECT '{table}' WHERE EXISTS (SELECT FROM \"{table}\" AS r WHERE r::text LIKE ANY ($1))"
            for (table,) in tables
        ]
        patterns = [f"%{needle}%" for needle in _needles()]
        found = await connection.fetch(" UNION ALL ".join(looks), patterns) if looks else []
        return [f"postgres: a secret stands in {table}" for (table,) in found]
    finally:
        await connection.close()


def _needles() -> set[str]:
    return _planted | {secret.encode().hex() for secret in _planted}


def _value(client: Any, key: bytes) -> object:
    read = {
        b"string": lambda: client.get(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"hash": lambda: client.hgetall(key),
        b"set": lambda: client.smembers(key),
        b"stream": lambda: client.xrange(key),
    }
    return read.get(client.type(key), lambda: None)()

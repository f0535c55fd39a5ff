"""What no test may leave behind: a planted secret in Redis, Postgres or a log line, or what is not listed as kept."""

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import asyncpg
import redis

from tests.needles import NEEDLE_BYTES, Needles
from tests.registry import is_blob_name, key_kept, names

CANARY = f"canary{secrets.token_hex(12)}"
"""Stands in every body of upload_bytes(), and nowhere else."""

ROWS_AT_ONCE = 1000

_planted: set[str] = {CANARY}


def plant(secret: str) -> str:
    """Let every later check of this test look for the secret too, which has eight bytes at least."""
    assert len(secret.encode()) >= NEEDLE_BYTES
    _planted.add(secret)
    return secret


def forget_planted() -> None:
    _planted.intersection_update({CANARY})


def leaks(texts: Iterable[str]) -> list[str]:
    """Those texts in which a planted secret stands, as it is or in hex."""
    return _Secrets().among(list(texts))


def refuse_unlisted_keys(url: str) -> None:
    """Let Redis refuse keys and channels that the retention registry does not list, whoever asks, and remember them."""
    client = _client(url)
    keys, channels = [f"~{name}" for name in names("redis")], [f"&{name}" for name in names("channel")]
    client.execute_command("ACL", "SETUSER", "default", "resetkeys", "resetchannels", *keys, *channels)
    client.close()


def redis_faults(url: str) -> list[str]:
    """What of Redis' content must not be there; everything is gone afterwards, so that the next test starts clean."""
    client = _client(url)
    try:
        refused = [entry["object"] for entry in client.acl_log() if entry["reason"] in {"key", "channel"}]
        client.acl_log_reset()
        keys: list[bytes] = list(client.scan_iter(count=1000))
        faults = [f"redis: {name!r} is not in the retention registry" for name in refused]
        faults += [fault for key in keys for fault in _age_faults(key, client.pttl(key))]
        held = [f"{key!r} {_value(client, key)!r}" for key in keys]
        client.flushall()
    finally:
        client.close()
    return faults + [f"redis: {text}" for text in leaks(held)]


def blob_faults(folder: Path) -> list[str]:
    """The files of a blob store whose names have no form that is listed."""
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return [f"blobs: {name!r} is not in the retention registry" for name in found if not is_blob_name(name)]


async def database_faults(dsn: str) -> list[str]:
    """The tables in which a planted secret stands."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        if not tables:
            return []
        secrets, found = _Secrets(), set[str]()
        looks = " UNION ALL ".join(f"SELECT '{table} ' || r::text FROM \"{table}\" AS r" for (table,) in tables)
        async with connection.transaction(readonly=True):
            cursor = await connection.cursor(looks)
            while rows := await cursor.fetch(ROWS_AT_ONCE):
                found |= {text.split()[0] for text in secrets.among([text for (text,) in rows])}
        return [f"postgres: a secret stands in {table}" for table in sorted(found)]
    finally:
        await connection.close()


class _Secrets:
    """What is planted, as it is and in hex; a hundred thousand after `make laws`, and as many rows and lines."""

    def __init__(self) -> None:
        self._by_start: dict[bytes, list[str]] = {}
        for planted in _planted:
            for needle in (planted, planted.encode().hex()):
                self._by_start.setdefault(needle.encode()[:NEEDLE_BYTES], []).append(needle)
        self._starts = Needles(self._by_start)

    def among(self, texts: Sequence[str]) -> list[str]:
        """Those texts in which one of them stands."""
        starts = self._starts.found_in(["\n".join(texts).encode(errors="replace")])
        needles = [needle for start in starts for needle in self._by_start[start]]
        return [text for text in texts if any(needle in text for needle in needles)]


def _age_faults(key: bytes, left_ms: int) -> list[str]:
    kept = key_kept(key.decode(errors="replace"))
    assert kept is not None  # Redis takes no others
    if left_ms == -1:
        return [f"redis: {key!r} never ends"] if kept.max_age_s is not None else []
    is_older = kept.max_age_s is not None and left_ms > kept.max_age_s * 1000
    return [f"redis: {key!r} has {left_ms} ms left, more than the registry says"] if is_older else []


def _client(url: str) -> Any:
    return cast("Any", redis).Redis.from_url(url)


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

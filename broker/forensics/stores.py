"""Redis and Postgres as places where something may be left: their own words, past their files and their memory."""

import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import asyncpg
import redis.asyncio
from redis.exceptions import RedisError

from broker.forensics.processes import Memory, Pids
from broker.forensics.surfaces import Files, Leaks, NotScanned, Part, Surface
from broker.store.files import statements

SQL: Final = statements("forensics")
BY_THE_LOG: Final = "by the log"
PAST_THE_LOG: Final = "past the log"
"""How Postgres is made to write something down."""
_PLANTED_FOR_S: Final = 600
_TIMEOUT_S: Final = 30.0
_WAL_PAGE_BYTES: Final = 8192
_WAL_MAGIC: Final = b"\xd1"
"""The high byte of every version's number."""
_HEADER_BYTES: Final = 24
_LONG_HEADER_BYTES: Final = 40
_HAS_LONG_HEADER: Final = 0x02

Address = Callable[[], str]
"""Where a server is; it is asked anew each time, since a stack may start again."""


class RedisValues(Surface):
    """Every key in Redis, and what it holds: as it is read, for DUMP would compress it."""

    def __init__(self, name: str, url: Address) -> None:
        super().__init__(name)
        self._url = url

    async def parts(self) -> AsyncGenerator[Part]:
        """Yield each key."""
        async with redis_at(self._url()) as client:
            async for key in client.scan_iter(count=1000):
                yield Part(f"key {key[:40]!r}", [b"\0".join((key, *await _held(client, key)))])

    @asynccontextmanager
    async def planted(self, leaks: Leaks) -> AsyncGenerator[None]:
        """Set a key for each."""
        async with keys_in_redis(self._url(), leaks):
            yield


class RedisHeap(Memory):
    """The memory of the Redis server."""

    def __init__(self, name: str, pids: Pids, url: Address) -> None:
        super().__init__(name, pids)
        self._url = url

    @asynccontextmanager
    async def planted(self, leaks: Leaks) -> AsyncGenerator[None]:
        """Have the server itself hold it."""
        async with keys_in_redis(self._url(), leaks):
            yield


class PostgresRows(Surface):
    """Every row of every table, as COPY gives it."""

    def __init__(self, name: str, dsn: Address) -> None:
        super().__init__(name)
        self._dsn = dsn

    async def parts(self) -> AsyncGenerator[Part]:
        """Yield each table."""
        async with postgres_at(self._dsn()) as connection:
            for table in await connection.fetch(SQL["tables"]):
                blocks: list[bytes] = []
                await connection.copy_from_table(
                    table["name"], schema_name=table["schema"], output=_into(blocks), format="binary"
                )
                yield Part(f"table {table['name']}", blocks)

    @asynccontextmanager
    async def planted(self, leaks: Leaks) -> AsyncGenerator[None]:
        """Insert a row for each."""
        async with rows_in_postgres(self._dsn(), leaks, BY_THE_LOG):
            yield


class PostgresFiles(Files):
    """Files of the Postgres server, into which only it writes."""

    def __init__(self, name: str, *directories: Path, wanted: Callable[[Path], bool], dsn: Address, way: str) -> None:
        super().__init__(name, *directories, wanted=wanted)
        self._dsn = dsn
        self._way = way

    @asynccontextmanager
    async def planted(self, leaks: Leaks) -> AsyncGenerator[None]:
        """Have the server write it there: by way of its log, or past it."""
        async with rows_in_postgres(self._dsn(), leaks, self._way):
            yield


class PostgresWal(PostgresFiles):
    """
    Segments of the write-ahead log, without the header that begins each of their pages.

    A record goes on behind the header of the next page, which would tear apart what is looked for (PostgreSQL 15 to 18,
    src/include/access/xlog_internal.h: XLogPageHeaderData).
    """

    async def parts(self) -> AsyncGenerator[Part]:
        """Yield each segment."""
        async for part in super().parts():
            yield Part(part.name, without_page_headers(part.blocks))


def without_page_headers(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Take the headers out of pages of a write-ahead log; whatever is no such page stays as it is."""
    for block in blocks:
        pages = (block[at : at + _WAL_PAGE_BYTES] for at in range(0, len(block), _WAL_PAGE_BYTES))
        yield b"".join(page[_header_bytes(page) :] for page in pages)


def _header_bytes(page: bytes) -> int:
    if page[1:2] != _WAL_MAGIC:
        return 0
    return _LONG_HEADER_BYTES if page[2] & _HAS_LONG_HEADER else _HEADER_BYTES


async def _held(client: Any, key: bytes) -> list[bytes]:
    reads = {
        b"string": lambda: client.get(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"hash": lambda: client.hgetall(key),
        b"stream": lambda: client.xrange(key),
    }
    kind = await client.type(key)
    return [] if kind == b"none" else list(_flat(await reads[kind]()))


def _flat(value: object) -> Iterator[bytes]:
    """Take what Redis answers apart into bytes."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        yield from _flat(list(cast("dict[object, object]", value).items()))
    elif isinstance(value, list | tuple | set):
        for one in cast("Iterable[object]", value):
            yield from _flat(one)


@asynccontextmanager
async def redis_at(url: str) -> AsyncGenerator[Any]:
    """Connect for a while; NotScanned when it does not answer."""
    client = cast("Any", redis.asyncio.Redis).from_url(url)
    try:
        yield client
    except (RedisError, OSError) as exc:
        raise NotScanned(f"Redis does not answer ({type(exc).__name__})") from exc
    finally:
        await client.aclose()


@asynccontextmanager
async def keys_in_redis(url: str, leaks: Leaks) -> AsyncGenerator[None]:
    """Inside the block there is a key for each leak."""
    keys = {f"lethe:planted:{secrets.token_hex(4)}": leak for leak in leaks.values()}
    async with redis_at(url) as client:
        for name, leak in keys.items():
            await client.set(name, leak, ex=_PLANTED_FOR_S)
    try:
        yield
    finally:
        async with redis_at(url) as client:
            await client.delete(*keys)


@asynccontextmanager
async def postgres_at(dsn: str) -> AsyncGenerator[asyncpg.Connection]:
    """Connect for a while; NotScanned when it does not answer."""
    try:
        connection = await asyncpg.connect(dsn, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError) as exc:
        raise NotScanned(f"Postgres does not answer ({type(exc).__name__})") from exc
    try:
        yield connection
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        raise NotScanned(f"Postgres does not answer as it should ({type(exc).__name__})") from exc
    finally:
        await connection.close()


@asynccontextmanager
async def rows_in_postgres(dsn: str, leaks: Leaks, way: str) -> AsyncGenerator[None]:
    """Inside the block there is a row for each leak, written in one of two ways."""
    table, rows = f"lethe_planted_{secrets.token_hex(4)}", [(leak,) for leak in leaks.values()]
    make, insert, drop = (SQL[name].replace("lethe_planted", table) for name in ("make_table", "insert", "drop_table"))
    async with postgres_at(dsn) as connection:
        if way == PAST_THE_LOG:
            async with connection.transaction():
                await connection.execute(SQL["past_the_log"])
                await connection.execute(make)
                await connection.executemany(insert, rows)
        else:
            await connection.execute(make)
            await connection.executemany(insert, rows)
    try:
        yield
    finally:
        async with postgres_at(dsn) as connection:
            await connection.execute(drop)


def _into(blocks: list[bytes]) -> Callable[[bytes], Any]:
    async def take(block: bytes) -> None:
        blocks.append(bytes(block))

    return take

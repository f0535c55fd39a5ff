"""Examines the stores that the settings name: reachable, new enough, and able to forget."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final, cast
from urllib.parse import urlsplit

import asyncpg
from obstore.exceptions import BaseError
from redis.exceptions import RedisError

from broker.doctor.findings import Finding, note, ok, problem, warning
from broker.errors import BrokerError
from broker.frames import Memory
from broker.queue import connect
from broker.settings import Settings, SettingsInvalid
from broker.store.blobs import BlobStore
from broker.store.files import migrations
from broker.store.keyholders import Keyholders
from broker.store.keys import Keyholder

WITHIN_S: Final = 10.0
_OLDEST_POSTGRES: Final = 15
_OLDEST_REDIS: Final = (6, 2)
_SKEW_S: Final = 5.0


async def stores(settings: Settings) -> AsyncGenerator[Finding, None]:
    """Ask every store; one that is silent is a finding, not an exception."""
    for examine in (_postgres, _redis, _keyholder, _blobs):
        async with aclosing(examine(settings)) as findings:
            async for finding in findings:
                yield finding


async def _postgres(settings: Settings) -> AsyncGenerator[Finding, None]:
    try:
        connection = await asyncpg.connect(settings.postgres_dsn, timeout=WITHIN_S)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        yield problem(f"Postgres does not answer ({type(exc).__name__})", "correct LETHE_POSTGRES_DSN, or start it")
        return
    try:
        yield postgres_version(connection.get_server_version().major)
        yield skew((await connection.fetchval("SELECT now()")) - datetime.now(UTC), whose="Postgres")
        found = await connection.fetchval("SELECT to_regclass('migrations')")
        done = (
            {row["number"] for row in await connection.fetch("SELECT number FROM migrations")} if found else set[int]()
        )
        yield schema(done)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        yield problem(f"Postgres does not answer as it should ({type(exc).__name__})", "read its log")
    finally:
        await connection.close()


def postgres_version(major: int) -> Finding:
    """Only versions that are tested."""
    if major >= _OLDEST_POSTGRES:
        return ok(f"Postgres {major}")
    return problem(f"Postgres {major} is too old", f"use version {_OLDEST_POSTGRES} or newer")


def schema(done: set[int]) -> Finding:
    """The tables are those of this release."""
    known = {number for number, _ in migrations()}
    if known - done:
        return problem(f"{len(known - done)} migrations are not applied", "run `lethe migrate`")
    if done - known:
        return warning("the database is newer than this program", "upgrade Lethe on this machine")
    return ok("the database is at its newest version")


def skew(difference: object, *, whose: str) -> Finding:
    """Leases count by the database's clock and durations, but receipts and logs are compared by people."""
    seconds = abs(cast("float", getattr(difference, "total_seconds", lambda: 0.0)()))
    if seconds <= _SKEW_S:
        return ok(f"the clock agrees with that of {whose}")
    return warning(f"the clock differs from that of {whose} by {seconds:.0f} s", "keep both right with chrony or NTP")


async def _redis(settings: Settings) -> AsyncGenerator[Finding, None]:
    redis = connect(settings.redis_url)
    try:
        async with asyncio.timeout(WITHIN_S):
            told = cast("dict[str, object]", await cast("Awaitable[object]", redis.info()))  # pyright: ignore[reportUnknownMemberType]
        yield redis_version(str(told.get("redis_version", "0.0")))
        yield eviction(str(told.get("maxmemory_policy", "noeviction")), limit_bytes=int(str(told.get("maxmemory", 0))))
    except (OSError, TimeoutError, RedisError) as exc:
        yield problem(f"Redis does not answer ({type(exc).__name__})", "correct LETHE_REDIS_URL, or start it")
    finally:
        await redis.aclose(close_connection_pool=True)


def redis_version(version: str) -> Finding:
    """Only versions that have the commands."""
    parts = version.split(".")
    if tuple(int(part) for part in parts[:2] if part.isdigit()) >= _OLDEST_REDIS:
        return ok(f"Redis {version}")
    return problem(f"Redis {version} is too old", "use version 6.2 or newer, or Valkey")


def eviction(policy: str, *, limit_bytes: int) -> Finding:
    """What rings for a job must not be thrown away."""
    if policy == "noeviction" or not limit_bytes:
        return ok("Redis keeps what it is given")
    return warning(f"Redis throws keys away when it is full ({policy})", "set maxmemory-policy noeviction")


async def _keyholder(settings: Settings) -> AsyncGenerator[Finding, None]:
    try:
        keyholders = Keyholders.of(settings)
    except SettingsInvalid as exc:
        yield problem(str(exc), "docs/deploy.md says how keyholders are reached from other machines")
        return
    try:
        for keyholder in keyholders:
            async for finding in _one_keyholder(keyholder):
                yield finding
    finally:
        await keyholders.aclose()


async def _one_keyholder(keyholder: Keyholder) -> AsyncGenerator[Finding, None]:
    try:
        await keyholder.hello()
        stats = await keyholder.stats()
        yield ok(f"the keyholder answers: {stats.held} of {stats.capacity} keys")
        if stats.memory is Memory.PLAIN:
            yield warning("the keyholder's memory can be swapped out", "raise RLIMIT_MEMLOCK for it")
        if stats.held > stats.capacity * 0.9:
            yield warning("the keyholder is nearly full", "start it with a larger --capacity")
    except (BrokerError, OSError) as exc:
        yield problem(
            f"the keyholder does not answer at {keyholder.address} ({type(exc).__name__})",
            "start `lethe keyholder` there, as the same user where that is a path; with the certificates elsewhere",
        )


async def _blobs(settings: Settings) -> AsyncGenerator[Finding, None]:
    name = f"doctor-{secrets.token_hex(8)}"
    try:
        store = BlobStore(settings.blobs_url)
        async with asyncio.timeout(WITHIN_S):
            await store.put(name, _one_byte())
            is_directory = urlsplit(settings.blobs_url).scheme == "file"
            yield versions(await store.keeps_versions(), is_directory=is_directory)
            await store.destroy(name)
        yield ok("the blob store takes a blob, deletes it, and shows that it is gone")
    except (BrokerError, BaseError, OSError, TimeoutError, ValueError) as exc:
        yield problem(
            f"the blob store does not keep and delete a blob ({type(exc).__name__})",
            "correct LETHE_BLOBS_URL and its credentials; Lethe needs to put, get, head, list and delete",
        )


def versions(keeps: bool | None, *, is_directory: bool = False) -> Finding:
    """A bucket that keeps versions keeps what was deleted."""
    if is_directory:
        return ok("blobs lie in a directory; keep it out of backups and snapshots")
    if keeps is None:
        return note(
            "this blob store does not tell whether it keeps versions", "see that versioning and soft delete are off"
        )
    if not keeps:
        return ok("the bucket keeps no versions")
    return problem(
        "the bucket keeps versions: what is deleted stays",
        "use a bucket without versioning and object lock (ciphertext alone is kept, but no receipt may say absent)",
    )


async def _one_byte() -> AsyncIterator[bytes]:
    yield b"\0"

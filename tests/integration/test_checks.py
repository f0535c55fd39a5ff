"""A check that cannot find what was planted proves nothing: each one is shown something to find."""

import time
from pathlib import Path
from typing import Any, cast

import pytest
import redis
import structlog
from redis.exceptions import NoPermissionError

from broker.log import capture_log
from broker.settings import Settings
from broker.store.blobs import new_name
from tests.checks import CANARY, blob_faults, database_faults, forget_planted, leaks, plant, redis_faults
from tests.keyholder_process import new_key
from tests.lifecycle import keys_held, run_sql
from tests.stack import (
    Servers,
    keyholder_of,
    own_database,
    pretend_worker,
    queued_job,
    running_services,
    settings_for,
    upload_bytes,
)


def client_of(servers: Servers) -> Any:
    return cast("Any", redis).Redis.from_url(servers.embedded.redis_url)


def test_every_upload_carries_the_canary() -> None:
    """What the checks look for stands in every body of the suite, also in a small one."""
    assert CANARY.encode() in upload_bytes(64)


def test_redis_keys_without_an_end_are_found(servers: Servers) -> None:
    """Any but arq's own queue; and the next test starts with an empty Redis."""
    client = client_of(servers)
    client.set("lethe:mint:endless", "x")
    client.set("lethe:mint:ending", "x", ex=60)
    client.zadd("lethe:queue:gpu", {"x": 1})

    assert redis_faults(servers.embedded.redis_url) == ["redis: b'lethe:mint:endless' never ends"]
    assert client.dbsize() == 0
    client.close()


def test_a_redis_key_that_is_older_than_listed_is_found(servers: Servers) -> None:
    """The registry's greatest age is one that Redis keeps; what is never written has none."""
    client = client_of(servers)
    client.set("lethe:wake:gpu", "x", ex=61)
    client.set("lethe:wake:relay", "x", ex=60)
    client.set("arq:result:x", "x", ex=1)
    client.close()

    found = redis_faults(servers.embedded.redis_url)
    assert len(found) == 2
    assert any("lethe:wake:gpu" in fault for fault in found)
    assert any("arq:result:x" in fault for fault in found)


def test_what_is_not_listed_is_refused_and_found(servers: Servers) -> None:
    """A key and a channel that the registry does not have, from whatever process, also where the error is swallowed."""
    client = client_of(servers)
    for command in (lambda: client.set("new:thing", "x", ex=1), lambda: client.publish("news", "x")):
        with pytest.raises(NoPermissionError):
            command()
    client.close()

    assert sorted(redis_faults(servers.embedded.redis_url)) == [
        "redis: 'new:thing' is not in the retention registry",
        "redis: 'news' is not in the retention registry",
    ]
    assert redis_faults(servers.embedded.redis_url) == []


def test_a_blob_whose_name_says_something_is_found(tmp_path: Path) -> None:
    """Names are 128 random bits; whatever else lies there is none of ours."""
    (tmp_path / "deep").mkdir()
    for name in (new_name(), f"{new_name()}#1", "IMG_1234.jpg", f"deep/{new_name()}"):
        (tmp_path / name).touch()

    assert len(blob_faults(tmp_path)) == 2


def test_a_canary_in_redis_is_found(servers: Servers) -> None:
    """In a key's name, in a value, in a member, and in hex."""
    token = plant("token-of-a-user")
    client = client_of(servers)
    client.set(f"lethe:mint:{CANARY}", "x", ex=60)
    client.set("lethe:mint:value", CANARY, ex=60)
    client.set("lethe:mint:hex", token.encode().hex(), ex=60)
    client.zadd("lethe:queue:gpu", {token: 1})
    client.close()

    assert len(redis_faults(servers.embedded.redis_url)) == 4


async def test_a_canary_in_postgres_is_found(settings: Settings) -> None:
    """As text, and as bytes, which Postgres shows in hex."""
    await run_sql(settings, "INSERT INTO receipt_keys (vkey) VALUES ($1)", CANARY)
    await run_sql(settings, "INSERT INTO users (id, token_hash) VALUES ('u', $1)", CANARY.encode()[:30] + b"12")
    found = await database_faults(settings.postgres_dsn)
    await run_sql(settings, "DELETE FROM receipt_keys")
    await run_sql(settings, "DELETE FROM users")

    assert sorted(found) == ["postgres: a secret stands in receipt_keys", "postgres: a secret stands in users"]
    assert await database_faults(settings.postgres_dsn) == []


async def test_a_secret_is_found_among_a_hundred_thousand(settings: Settings) -> None:
    """As `make laws` plants them, one for each user that it makes: to look for all takes seconds."""
    secrets = [plant(f"{n:08}of{n}") for n in range(100_000)]
    await run_sql(settings, "INSERT INTO receipt_keys (vkey) SELECT 'vkey' || n FROM generate_series(1, 20000) AS n")
    began_s = time.monotonic()
    assert await database_faults(settings.postgres_dsn) == []
    await run_sql(settings, "INSERT INTO receipt_keys (vkey) VALUES ($1)", f"a{secrets[-1]}z")
    assert await database_faults(settings.postgres_dsn) == ["postgres: a secret stands in receipt_keys"]
    assert leaks(f"line {n}" for n in range(20_000)) == []
    assert len(leaks(f"line {n} of {secrets[-1]}" for n in range(9))) == 9
    took_s = time.monotonic() - began_s

    await run_sql(settings, "DELETE FROM receipt_keys")
    forget_planted()
    assert took_s < 30.0


def test_a_canary_in_a_log_line_is_found() -> None:
    """Lines are collected as written; the allow-list lets a short word through, and the check sees it."""
    plant("shortsecret")
    with capture_log() as lines:
        structlog.get_logger().info("planted_secret", code="shortsecret")
    assert len(leaks(lines)) == 1
    forget_planted()  # else the check of this very test would find it too
    assert leaks(lines) == []


async def test_a_test_starts_with_no_key_of_another(servers: Servers, tmp_path: Path) -> None:
    """Those that it left, with a row or without one, would end while the next one counts."""
    async with own_database(servers) as dsn, running_services(settings_for(servers, dsn, tmp_path)) as services:
        await pretend_worker(services)
        await queued_job(services)
        assert await keys_held(services) == 1
    async with own_database(servers) as dsn, running_services(settings_for(servers, dsn, tmp_path)) as services:
        assert await keys_held(services) == 0
        await keyholder_of(services).put(*new_key(), ttl_s=60)
    async with own_database(servers) as dsn, running_services(settings_for(servers, dsn, tmp_path)) as services:
        assert await keys_held(services) == 0

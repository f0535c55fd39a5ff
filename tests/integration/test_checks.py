"""A check that cannot find what was planted proves nothing: each one is shown something to find."""

from typing import Any, cast

import redis
import structlog

from broker.log import capture_log
from broker.settings import Settings
from tests.checks import CANARY, database_faults, forget_planted, leaks, plant, redis_faults
from tests.lifecycle import run_sql
from tests.stack import Servers, upload_bytes


def client_of(servers: Servers) -> Any:
    return cast("Any", redis).Redis.from_url(servers.embedded.redis_url)


def test_every_upload_carries_the_canary() -> None:
    """What the checks look for stands in every body of the suite, also in a small one."""
    assert CANARY.encode() in upload_bytes(64)


def test_redis_keys_without_an_end_are_found(servers: Servers) -> None:
    """Any but arq's own queue; and the next test starts with an empty Redis."""
    client = client_of(servers)
    client.set("endless", "x")
    client.set("ending", "x", ex=60)
    client.zadd("lethe:queue:gpu", {"x": 1})

    assert redis_faults(servers.embedded.redis_url) == ["redis: b'endless' never ends"]
    assert client.dbsize() == 0
    client.close()


def test_a_canary_in_redis_is_found(servers: Servers) -> None:
    """In a key's name, in a value, in a member, and in hex."""
    token = plant("token-of-a-user")
    client = client_of(servers)
    client.set(f"key:{CANARY}", "x", ex=60)
    client.set("value", CANARY, ex=60)
    client.set("hex", token.encode().hex(), ex=60)
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


def test_a_canary_in_a_log_line_is_found() -> None:
    """Lines are collected as written; the allow-list lets a short word through, and the check sees it."""
    plant("shortsecret")
    with capture_log() as lines:
        structlog.get_logger().info("planted_secret", code="shortsecret")
    assert len(leaks(lines)) == 1
    forget_planted()  # else the check of this very test would find it too
    assert leaks(lines) == []

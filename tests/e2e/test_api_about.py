"""Users, operations, keys, health, figures and the document."""

import asyncio
from typing import Any, cast

import httpx
import pytest

from broker.api.problems import MEDIA_TYPE
from providers.calls import trust
from tests.api_client import Api
from tests.stack import Servers, upload_bytes


async def test_a_user_is_an_id_and_a_token(api: Api) -> None:
    """Nothing is asked and nothing else is answered."""
    answer = await api.http.post("/v1/users")
    assert answer.status_code == 201
    assert set(answer.json()) == {"user_id", "token"}
    assert answer.json()["user_id"].startswith("usr_")
    assert answer.headers["cache-control"] == "private, no-store"


async def test_a_network_makes_so_many_users(api: Api) -> None:
    """Beyond the profile's limit it is 429; what counts is gone in ten minutes and holds no address."""
    limit = api.services.policies.profile.limits.users_per_prefix_per_10_min
    answers = [await api.http.post("/v1/users") for _ in range(limit)]
    assert [answer.status_code for answer in answers] == [201] * (limit - 1) + [429]
    assert answers[-1].json()["code"] == "too_many_requests"
    assert int(answers[-1].headers["retry-after"]) == answers[-1].json()["retry_after"] > 0
    keys: list[bytes] = await cast("Any", api.services.redis).keys("lethe:mint:*")
    assert len(keys) == 1
    for key in (*keys, b"lethe:limit:salt"):
        assert 0 < await api.services.redis.ttl(key) <= 600
        assert b"127.0.0" not in key  # three digits alone stand in one hash of a hundred by chance


async def test_operations_are_those_that_can_run(api: Api) -> None:
    """Each with parameters, limits, price, exposure and retention."""
    items = {item["name"]: item for item in (await api.http.get("/v1/operations")).json()["items"]}
    assert set(items) == {"noop", "upscale", "restyle"}
    upscale = items["upscale"]
    assert upscale["parameters"]["properties"]["scale"]["enum"] == [2, 3, 4]
    assert upscale["limits"]["max_upload_bytes"] == 25_000_000
    assert (upscale["price"], upscale["exposure"]) == (0, "local")
    assert upscale["retention"] == {"upload_s": 0, "outputs_s": 3600, "records_s": 604_800, "provider_s": 0}


async def test_an_operation_that_nobody_runs_is_refused(api: Api) -> None:
    """It is 503 at the door, with a time to come back, rather than a job that waits."""
    answer = await api.put(upload_bytes(), query="operation=remove_background")
    assert (answer.status_code, answer.json()["code"]) == (503, "operation_unavailable")
    assert answer.headers["retry-after"] == "2"


async def test_the_keys_have_dates(api: Api) -> None:
    """Current and former keys are published, in the form that signed notes use."""
    await api.services.stores.receipts.key_used("former.test/receipts+00000000+AAAA")
    items = (await api.http.get("/v1/privacy/keys")).json()["items"]
    assert [item["is_current"] for item in items] == [True, False]
    assert items[0]["vkey"] == api.services.signer.vkey
    assert items[0]["first_used_at"].endswith("Z")


async def test_health_names_what_is_down(api: Api, servers: Servers) -> None:
    """Ready says which part does not answer, and is well again by itself; live does not care."""
    assert (await api.http.get("/health/ready")).json() == {
        "status": "ready",
        "postgres": "ok",
        "redis": "ok",
        "keyholder": "ok",
        "blobs": "ok",
    }
    servers.keyholder.stop()
    try:
        answer = await api.http.get("/health/ready")
        refused = await api.put(upload_bytes())
        operator = await api.http.get(f"{api.operator_url}/health")
    finally:
        servers.keyholder.start()
    assert answer.status_code == 503
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["#/keyholder"]
    assert (refused.status_code, refused.json()["code"]) == (503, "keyholder_unavailable")
    assert operator.json() == {"postgres": "ok", "redis": "ok", "keyholder": "down", "blobs": "ok"}
    assert (await api.http.get("/health/live")).json() == {"status": "live"}
    assert (await api.http.get("/health/ready")).status_code == 200


async def test_a_closing_server_is_not_ready(api: Api, closing: asyncio.Event) -> None:
    """A balancer that asks is told to send nobody here any more."""
    closing.set()
    answer = await api.http.get("/health/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "closing")


async def test_figures_are_for_the_operator_alone(api: Api) -> None:
    """The operator's listener shows what Postgres counts; the clients' has no such address."""
    await api.queued()
    figures = (await api.http.get(f"{api.operator_url}/metrics")).text
    assert 'lethe_jobs{operation="noop",state="queued"} 1.0' in figures
    assert "lethe_uploads_alive 1.0" in figures
    assert (await api.http.get("/metrics")).status_code == 404
    assert (await api.http.get(f"{api.operator_url}/v1/jobs")).status_code == 404


async def test_an_exception_is_a_problem_without_words(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected is 500 `internal`, and neither told nor logged with its message."""

    async def broken(*_: object) -> None:
        raise RuntimeError("a secret of somebody")

    monkeypatch.setattr(api.services.stores.jobs, "find", broken)
    answer = await api.get("/v1/jobs/00000000-0000-4000-8000-000000000000")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text


async def test_a_lost_database_is_told(api: Api) -> None:
    """A store that does not answer is 503 with Retry-After."""
    await api.services.stores.database.aclose()
    answer = await api.get("/v1/jobs")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert answer.headers["retry-after"] == "2"
    async with httpx.AsyncClient(base_url=api.url, verify=trust()) as other:
        assert (await other.get("/health/ready")).status_code == 503

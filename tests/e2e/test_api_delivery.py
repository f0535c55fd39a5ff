"""Outputs that end when they are delivered: the phone's word ends one at once, a complete download after the grace."""

from pathlib import Path
from typing import Any

import pytest

from broker.settings import Settings
from tests.api_client import Api, noise
from tests.lifecycle import blobs, count, eventually, run_sql
from tests.profiles import DELIVERED, with_profile
from tests.stack import Servers, settings_for

BODY = noise(600_001)
GRACE_OVER = "UPDATE outputs SET destroy_at = destroy_at - interval '1 minute'"


@pytest.fixture
def settings(servers: Servers, dsn: str, tmp_path: Path) -> Settings:
    return with_profile(settings_for(servers, dsn, tmp_path), tmp_path, DELIVERED)


async def shown(api: Api, job: dict[str, Any]) -> dict[str, Any]:
    return (await api.get(f"/v1/jobs/{job['id']}")).json()


async def test_a_complete_download_begins_the_grace(api: Api, settings: Settings) -> None:
    """Served to its end an output lives a minute more, whatever is fetched meanwhile; then it is gone."""
    job = await api.finished(BODY)
    url = job["outputs"][0]["url"]
    assert "expires_at" not in job["outputs"][0]

    assert (await api.get(url)).content == BODY
    await eventually(lambda: count(settings, "outputs", "destroy_at BETWEEN now() + '50 s' AND now() + '60 s'"))
    again = await shown(api, job)
    assert again["outputs"][0]["expires_at"] < again["expires_at"]
    await run_sql(settings, "UPDATE outputs SET destroy_at = destroy_at - interval '40 s'")
    assert (await api.get(url)).content == BODY, "the connection may have dropped"
    assert await count(settings, "outputs", "destroy_at < now() + '25 s'"), "and no download lengthens its time"

    await run_sql(settings, GRACE_OVER)
    assert (await api.get(url)).json()["code"] == "output_gone"
    await eventually(lambda: count(settings, "outputs", "destroyed_at IS NOT NULL"))
    assert blobs(settings) == []
    assert "outputs" not in await shown(api, job)


async def test_a_broken_download_begins_nothing(api: Api, settings: Settings) -> None:
    """A range that ends before the end, a HEAD, a thumbnail's worth of bytes: the phone has not got it yet."""
    job = await api.finished(BODY)
    url = job["outputs"][0]["url"]
    assert (await api.get(url, Range="bytes=0-599999")).status_code == 206
    assert (await api.http.head(url, headers=api.auth)).status_code == 200
    assert await count(settings, "outputs", "destroy_at IS NULL") == 1

    assert (await api.get(url, Range="bytes=600000-")).status_code == 206
    await eventually(lambda: count(settings, "outputs", "destroy_at IS NOT NULL"))


async def test_what_nobody_fetches_goes_at_its_time(api: Api, settings: Settings) -> None:
    """`outputs_for_s` is the longest that an output waits to be delivered."""
    job = await api.finished(BODY)
    assert job["expires_at"] > job["finalized_at"]
    await run_sql(settings, "UPDATE jobs SET outputs_until = now() - interval '1 second'")
    await eventually(lambda: count(settings, "outputs", "destroyed_at IS NOT NULL"))
    assert blobs(settings) == []


async def test_saved_is_said_with_delete(api: Api, settings: Settings) -> None:
    """DELETE of one output destroys it at once, and no other; again, it answers the same."""
    two = await api.finished_with(b"first", b"second")
    path = f"/v1/jobs/{two['id']}/outputs"
    for _ in range(2):
        answer = await api.delete(f"{path}/0")
        assert (answer.status_code, answer.json()) == (200, {"job_id": two["id"], "n": 0, "output": "destroyed"})
    assert len(blobs(settings)) == 1
    assert (await api.get(f"{path}/0")).json()["code"] == "output_gone"
    assert (await api.get(f"{path}/1")).content == b"second"
    left = await shown(api, two)
    assert [output["url"] for output in left["outputs"]] == [f"{path}/1"]
    assert left["version"] > two["version"]
    assert (await api.delete(f"{path}/1")).json()["output"] == "destroyed"
    assert blobs(settings) == []
    assert (await shown(api, two))["charged"] is True


async def test_what_is_not_there_cannot_be_deleted(api: Api) -> None:
    """Another user's output, an unknown number, and a job that is not final, each with its code."""
    job, waiting = await api.finished(b"mine"), await api.queued()
    stranger = (await api.http.post("/v1/users")).json()["token"]
    auth = {"Authorization": f"Bearer {stranger}"}
    answers = [
        await api.http.delete(job["outputs"][0]["url"], headers=auth),
        await api.delete(f"/v1/jobs/{job['id']}/outputs/99999999999999"),
        await api.delete(f"/v1/jobs/{waiting['id']}/outputs/0"),
        await api.http.delete(job["outputs"][0]["url"]),
    ]
    assert [(a.status_code, a.json()["code"]) for a in answers] == [
        (404, "job_not_found"),
        (404, "output_not_found"),
        (409, "settling"),
        (401, "unauthenticated"),
    ]
    assert (await api.get(job["outputs"][0]["url"])).content == b"mine"


async def test_a_lying_store_leaves_the_rest_to_the_sweep(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob that is shown after its deletion is `pending`, served no more, and destroyed once the store is honest."""
    job = await api.finished(b"stubborn")
    blob_store = type(api.services.stores.blobs)
    delete = blob_store._delete  # pyright: ignore[reportPrivateUsage] - a store that lies

    async def keep(self: object, name: str) -> None:
        pass

    monkeypatch.setattr(blob_store, "_delete", keep)
    answer = await api.delete(job["outputs"][0]["url"])
    assert (answer.status_code, answer.json()["output"]) == (202, "pending")
    assert (await api.get(job["outputs"][0]["url"])).json()["code"] == "output_gone"
    assert len(blobs(settings)) == 1

    monkeypatch.setattr(blob_store, "_delete", delete)
    await eventually(lambda: count(settings, "outputs", "destroyed_at IS NOT NULL"))
    assert blobs(settings) == []

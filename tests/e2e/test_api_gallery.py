"""A user's outputs as a gallery: newest first, by cursor, deleted one by one or all."""

from uuid import uuid4

import pytest

from broker.jobs import Outcome
from broker.settings import Settings
from broker.store.blobs import BlobStore
from tests.api_client import Api
from tests.lifecycle import blobs, count, eventually


async def test_a_gallery_is_listed_newest_first(api: Api) -> None:
    """Every output that can be fetched, once, over pages of any size; nobody else's, and none of a failed job."""
    jobs = [await api.finished_with(b"a", b"b") for _ in range(3)]
    await api.ended(await api.queued(), Outcome.FAILED, code="invalid_image")
    await api.queued()
    expected = [(job["id"], n) for job in reversed(jobs) for n in (1, 0)]
    for limit in (1, 2, 4, 6, 100):
        items, cursor = [], ""
        while True:
            page = (await api.get(f"/v1/outputs?limit={limit}&cursor={cursor}")).json()
            items += page["items"]
            assert len(page["items"]) <= limit
            if not (cursor := page.get("next", "")):
                break
        assert [(item["job_id"], item["n"]) for item in items] == expected
    assert items[0]["operation"] == "noop"
    assert items[0]["expires_at"] > items[0]["created_at"]
    assert (await api.get(items[0]["url"])).content == b"b"
    stranger = (await api.http.post("/v1/users")).json()["token"]
    answer = await api.http.get("/v1/outputs", headers={"Authorization": f"Bearer {stranger}"})
    assert answer.json() == {"items": []}


async def test_a_cursor_outlives_what_it_points_to(api: Api) -> None:
    """A page is gone on with although its last output was deleted meanwhile."""
    older, newer = await api.finished(b"older"), await api.finished(b"newer")
    page = (await api.get("/v1/outputs?limit=1")).json()
    assert page["items"][0]["job_id"] == newer["id"]
    await api.delete(newer["outputs"][0]["url"])
    rest = (await api.get(f"/v1/outputs?cursor={page['next']}")).json()
    assert [item["job_id"] for item in rest["items"]] == [older["id"]]


@pytest.mark.parametrize("cursor", ["x", "AAAA", "_" * 37, "%C3%A9", "A" * 64])
async def test_a_cursor_that_we_did_not_make_is_refused(api: Api, cursor: str) -> None:
    """400 `invalid_cursor`, whatever it holds."""
    answer = await api.get(f"/v1/outputs?cursor={cursor}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("limit", ["0", "101", "many"])
async def test_a_page_has_its_limits(api: Api, limit: str) -> None:
    """From 1 to 100 outputs; anything else is refused with a pointer."""
    answer = await api.get(f"/v1/outputs?limit={limit}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/parameters/limit")


async def test_a_gallery_is_emptied(api: Api, settings: Settings) -> None:
    """DELETE of all destroys what this user has, and nothing of another, nor a job that waits."""
    for _ in range(3):
        await api.finished_with(b"a", b"b")
    waiting = await api.queued()
    mine, api.token = api.token, (await api.http.post("/v1/users")).json()["token"]
    theirs = await api.finished(b"theirs")
    other, api.token = api.token, mine

    answer = await api.delete("/v1/outputs")
    assert (answer.status_code, answer.json()) == (200, {"destroyed": 6, "pending": 0})
    assert (await api.get("/v1/outputs")).json() == {"items": []}
    assert (await api.delete("/v1/outputs")).json() == {"destroyed": 0, "pending": 0}
    assert (await api.get(f"/v1/jobs/{waiting['id']}")).json()["status"] == "queued"
    assert await count(settings, "outputs", "destroyed_at IS NULL") == 1
    api.token = other
    assert (await api.get(theirs["outputs"][0]["url"])).content == b"theirs"


async def test_what_cannot_be_destroyed_now_is_destroyed_later(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that goes on to show what it deleted: all of it is served no more, and the sweep ends it."""
    await api.finished_with(b"a", b"b")
    delete = BlobStore._delete  # pyright: ignore[reportPrivateUsage] - a store that lies

    async def keep(self: BlobStore, name: str) -> None:
        pass

    monkeypatch.setattr(BlobStore, "_delete", keep)
    answer = await api.delete("/v1/outputs")
    assert (answer.status_code, answer.json()) == (202, {"destroyed": 0, "pending": 2})
    assert (await api.get("/v1/outputs")).json() == {"items": []}
    monkeypatch.setattr(BlobStore, "_delete", delete)
    await eventually(lambda: _empty(settings))


async def _empty(settings: Settings) -> bool:
    return not blobs(settings) and await count(settings, "outputs", "destroyed_at IS NULL") == 0


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/outputs"), ("DELETE", "/v1/outputs")])
async def test_a_gallery_is_its_users_alone(api: Api, method: str, path: str) -> None:
    """Nobody sees or empties it without a token that we gave."""
    answer = await api.http.request(method, path, headers={"Authorization": f"Bearer {uuid4()}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")

"""Outputs over HTTP: whole, in parts, only to their owner, only while they are there."""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from broker.api.serving import Disclosures
from broker.jobs import Outcome
from tests.api_client import Api, noise
from tests.stack import keyholder_of

BIG = noise(700_001)


async def test_an_output_is_served_whole(api: Api) -> None:
    """Bytes, length, type, a strong ETag, and nothing that a cache may keep."""
    job = await api.finished(BIG)
    [output] = job["outputs"]
    answer = await api.get(output["url"])
    assert answer.status_code == 200
    assert answer.content == BIG
    assert answer.headers["content-length"] == str(len(BIG)) == str(output["bytes"])
    assert answer.headers["content-type"] == output["media_type"] == "image/png"
    assert answer.headers["etag"].startswith('"')
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert job["charged"] is True
    assert job["expires_at"] > job["finalized_at"]


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=262143-262144", 262_143, 262_145),
        ("bytes=16384-", 16_384, len(BIG)),
        ("bytes=-5", len(BIG) - 5, len(BIG)),
        ("bytes=700000-9999999", 700_000, len(BIG)),
        ("bytes=100-600000", 100, 600_001),
    ],
)
async def test_a_range_is_served(api: Api, asked: str, start: int, stop: int) -> None:
    """A single range is 206 with exactly its bytes."""
    url = (await api.finished(BIG))["outputs"][0]["url"]
    answer = await api.get(url, Range=asked)
    assert answer.status_code == 206
    assert answer.content == BIG[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(BIG)}"


async def test_ranges_follow_the_standard(api: Api) -> None:
    """Beyond the end is 416; another version, or a kind of range we do not do, gets the whole."""
    url = (await api.finished(BIG))["outputs"][0]["url"]
    beyond = await api.get(url, Range=f"bytes={len(BIG)}-")
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{len(BIG)}"
    tag = (await api.get(url)).headers["etag"]
    assert (await api.get(url, Range="bytes=0-1", If_Range=tag)).status_code == 206
    for headers in ({"Range": "bytes=0-1", "If_Range": '"other"'}, {"Range": "bytes=0-1,5-6"}, {"Range": "lines=1-2"}):
        assert (await api.get(url, **headers)).status_code == 200


async def test_head_tells_without_opening(api: Api) -> None:
    """HEAD has the headers of GET and no body."""
    url = (await api.finished(b"result"))["outputs"][0]["url"]
    head = await api.http.head(url, headers=api.auth)
    whole = await api.get(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-length", "content-type", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]


async def test_outputs_wait_for_the_end(api: Api) -> None:
    """Until its job is final an output is 409; a number that is not there is 404, also for a failed job."""
    shown = await api.queued()
    early = await api.get(f"/v1/jobs/{shown['id']}/outputs/0")
    assert (early.status_code, early.json()["code"]) == (409, "settling")
    assert early.headers["retry-after"] == "1"
    done = await api.finished(b"result")
    for path in (f"/v1/jobs/{done['id']}/outputs/1", f"/v1/jobs/{done['id']}/outputs/-1"):
        assert (await api.get(path)).json()["code"] == "output_not_found"
    await api.ended(shown, Outcome.FAILED, code="invalid_image")
    assert (await api.get(f"/v1/jobs/{shown['id']}/outputs/0")).status_code == 404


async def test_a_lost_key_is_told(api: Api) -> None:
    """When the keyholder has no key any more the output is 410, nobody can open it, and the job is not charged."""
    job = await api.finished(b"result")
    assert job["charged"] is True
    [output] = await api.services.stores.custody.outputs((await api.row(job)).id)
    await keyholder_of(api.services).shred(output.key_id, ttl_s=60)
    answer = await api.get(job["outputs"][0]["url"])
    assert (answer.status_code, answer.json()["code"]) == (410, "output_lost")
    assert (await api.get(f"/v1/jobs/{job['id']}")).json()["charged"] is False


async def test_nothing_is_served_without_a_lease(api: Api) -> None:
    """A process whose lease is not safe opens nothing."""
    job = await api.finished(b"result")
    api.services.lease._ends_s = 0.0  # pyright: ignore[reportPrivateUsage] - as if no renewal had been answered
    answer = await api.get(job["outputs"][0]["url"])
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


async def test_a_client_that_stops_reading_and_goes_ends_the_answer(api: Api) -> None:
    """Nothing is held any longer for a download whose client went away."""
    url = (await api.finished(noise(20_000_000)))["outputs"][0]["url"]
    where = urlsplit(api.url)
    _, writer = await asyncio.open_connection(where.hostname, where.port, limit=1024)
    writer.write(f"GET {url} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n\r\n".encode())
    await until(lambda: holds(api) == 1)
    writer.close()
    await until(lambda: holds(api) == 0)


def holds(api: Api) -> int:
    return api.services.lease._held  # pyright: ignore[reportPrivateUsage] - what would keep the guard armed


async def until(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not predicate():  # noqa: ASYNC110 - the server notices by itself
            await asyncio.sleep(0.01)


async def test_an_answer_can_be_cut() -> None:
    """Whoever holds plaintext is ended when the lease becomes unsafe."""
    disclosures, held = Disclosures(), asyncio.Event()

    async def hold() -> None:
        async with disclosures.one_more():
            held.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await held.wait()
    disclosures.cut()
    with pytest.raises(asyncio.CancelledError):
        await task

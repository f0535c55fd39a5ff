"""The job routes, from outside."""

import asyncio
import re
from base64 import urlsafe_b64encode
from uuid import uuid4

from broker.jobs import Outcome
from tests.api_client import Api
from tests.stack import upload_bytes


async def test_a_put_is_accepted_and_shown(api: Api) -> None:
    """A new job is answered with 202, its address, its version and a hint when to ask again."""
    job_id = uuid4()
    answer = await api.put(upload_bytes(), job_id)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job_id}"
    assert answer.headers["retry-after"].isdigit()
    job = answer.json()
    assert answer.headers["etag"] == f'"v{job["version"]}"'
    assert job["id"] == str(job_id)
    assert job["status"] == "queued"
    assert job["exposure"] == "local"
    assert job["charged"] is False
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", job["created_at"])
    assert None not in job.values()
    assert answer.headers["cache-control"] == "private, no-store"
    waiting = (await api.get(f"/v1/jobs/{job_id}")).json()
    assert waiting["queue_position"] == 1
    assert waiting["eta_s"] >= 1


async def test_parameters_arrive(api: Api) -> None:
    """What stands in the query, in any order, and in the header, is what the job is run with; a repeat is refused."""
    sent = await api.put(upload_bytes(), query="scale=3&operation=upscale")
    assert (await api.row(sent.json())).parameters == {"scale": 3, "quality": "fast"}
    header = urlsafe_b64encode(b'{"quality":"best"}').decode()
    sent = await api.put(upload_bytes(), query="operation=upscale&scale=4", Lethe_Parameters=header)
    assert (await api.row(sent.json())).parameters == {"scale": 4, "quality": "best"}
    twice = await api.put(upload_bytes(), query="operation=upscale&scale=4&scale=3")
    assert (twice.status_code, twice.json()["code"]) == (422, "invalid_parameter")


async def test_the_same_put_gets_the_same_job(api: Api) -> None:
    """A repeated upload is 202 while the job lives, 200 when it is final, never a second job; other bytes are 409."""
    job_id, body = uuid4(), upload_bytes()
    first = await api.put(body, job_id)
    again = await api.put(body, job_id)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    other = await api.put(upload_bytes(), job_id)
    assert (other.status_code, other.json()["code"]) == (409, "job_conflict")
    await api.ended(first.json(), Outcome.FAILED, code="invalid_image")
    final = await api.put(body, job_id)
    assert (final.status_code, final.json()["status"]) == (200, "failed")
    assert len((await api.get("/v1/jobs")).json()["items"]) == 1


async def test_a_failed_job_says_why(api: Api) -> None:
    """A failure has a stable code and a sentence."""
    shown = await api.queued()
    await api.ended(shown, Outcome.FAILED, code="key_lost")
    job = (await api.get(f"/v1/jobs/{shown['id']}")).json()
    assert job["error_code"] == "key_lost"
    assert "keyholder" in job["error_detail"]
    assert "outputs" not in job


async def test_an_unchanged_job_is_not_sent_again(api: Api) -> None:
    """If-None-Match with the current version is 304 and empty."""
    shown = await api.queued()
    answer = await api.get(f"/v1/jobs/{shown['id']}", If_None_Match=f'"v{shown["version"]}"')
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"v{shown["version"]}"'


async def test_waiting_ends_with_a_change(api: Api) -> None:
    """Prefer: wait answers as soon as the version is another one."""
    shown = await api.queued()
    path = f"/v1/jobs/{shown['id']}"
    waiting = asyncio.create_task(api.get(path, Prefer="wait=60", If_None_Match=f'"v{shown["version"]}"'))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await api.claimed(shown)
    answer = await asyncio.wait_for(waiting, 2)
    assert answer.json()["status"] == "running"
    assert answer.headers["preference-applied"] == "wait=25"
    assert answer.headers["vary"] == "Prefer"


async def test_waiting_ends_with_the_time(api: Api) -> None:
    """When nothing changed in the time that was preferred, the answer is 304."""
    shown = await api.queued()
    answer = await api.get(f"/v1/jobs/{shown['id']}", Prefer="wait=1", If_None_Match=f'"v{shown["version"]}"')
    assert answer.status_code == 304


async def test_waiting_without_a_version_ends_with_the_job(api: Api) -> None:
    """A client that names no version waits for the end."""
    shown = await api.queued()
    waiting = asyncio.create_task(api.get(f"/v1/jobs/{shown['id']}", Prefer="wait=20"))
    await api.ended(shown, Outcome.SUCCEEDED, outputs=(b"x",))
    assert (await asyncio.wait_for(waiting, 3)).json()["status"] == "succeeded"


async def test_waiting_ends_with_the_server(api: Api, closing: asyncio.Event) -> None:
    """A closing server answers those who wait at once, with the job as it is."""
    shown = await api.queued()
    waiting = asyncio.create_task(api.get(f"/v1/jobs/{shown['id']}", Prefer="wait=20"))
    await asyncio.sleep(0.05)
    closing.set()
    api.services.changes.wake_all()
    assert (await asyncio.wait_for(waiting, 2)).json()["status"] == "queued"


async def test_delete_says_what_was_done(api: Api) -> None:
    """Cancelling is answered with a verdict; it may be repeated, and outputs of a final job are gone after it."""
    shown = await api.queued()
    answer = await api.delete(f"/v1/jobs/{shown['id']}")
    assert answer.status_code == 200
    assert answer.json() == {
        "id": shown["id"],
        "status": "canceled",
        "canceled": True,
        "charged": False,
        "upload": "destroyed",
        "outputs": "destroyed",
    }
    assert (await api.delete(f"/v1/jobs/{shown['id']}")).json()["canceled"] is False
    done = await api.finished(b"result")
    verdict = (await api.delete(f"/v1/jobs/{done['id']}")).json()
    assert (verdict["status"], verdict["charged"]) == ("succeeded", True)
    gone = await api.get(done["outputs"][0]["url"])
    assert (gone.status_code, gone.json()["code"]) == (410, "output_gone")
    assert "outputs" not in (await api.get(f"/v1/jobs/{done['id']}")).json()


async def test_the_list_has_pages(api: Api) -> None:
    """The cursor leads through all jobs, newest first, and says nothing of internal ids."""
    sent = [(await api.queued())["id"] for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    for expected in (2, 2, 1):
        page = (await api.get(f"/v1/jobs?limit=2&cursor={cursor}")).json()
        assert len(page["items"]) == expected
        seen += [item["id"] for item in page["items"]]
        cursor = page.get("next", "")
    assert cursor == ""
    assert seen == sent[::-1]
    for bad in ("AAAA", "%00", "AAAAAAAAAAAAAAAAAAAAAA"):
        answer = await api.get(f"/v1/jobs?cursor={bad}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_the_receipt_comes_with_the_final_state(api: Api) -> None:
    """Before the end it is 409; after it, a note that the published keys verify."""
    shown = await api.queued()
    path = f"/v1/jobs/{shown['id']}/receipt"
    early = await api.get(path)
    assert (early.status_code, early.json()["code"]) == (409, "receipt_not_ready")
    await api.ended(shown, Outcome.CANCELED)
    answer = await api.get(path)
    assert answer.headers["content-type"].startswith("text/plain")
    keys = (await api.get("/v1/privacy/keys")).json()["items"]
    assert [key["is_current"] for key in keys] == [True]
    from broker.receipts import verify

    assert str(verify(answer.text, [keys[0]["vkey"]]).job) == shown["id"]


async def test_a_half_sent_upload_is_seen(api: Api) -> None:
    """While a body comes in its owner sees the job as receiving, so that a buffering proxy can be told."""
    job_id, going_on = uuid4(), asyncio.Event()

    async def half() -> None:
        async def body():
            yield upload_bytes(2_000)
            await going_on.wait()
            yield upload_bytes(2_000)

        assert (await api.put(body(), job_id)).status_code == 202

    sending = asyncio.create_task(half())
    async with asyncio.timeout(3):
        while (answer := await api.get(f"/v1/jobs/{job_id}")).status_code == 404:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)
    assert answer.json()["status"] == "receiving"
    going_on.set()
    await sending

"""A user's rights over HTTP: what is held, a copy of it, erasure, restriction, objection, and how requests stand."""

import asyncio
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest

from broker.jobs import Outcome
from broker.receipts import verify
from broker.rights import erasure_id
from broker.settings import Settings
from broker.store import requests
from tests.api_client import Api
from tests.brokers import broker_with
from tests.lifecycle import blobs, count, eventually, keys_held, run_sql
from tests.profiles import settings_under
from tests.stack import pretend_worker, upload_bytes

ASKING = '[consent]\nrequired = ["processing"]\noptional = ["push", "marketing"]'
TABLES = (
    "users",
    "jobs",
    "custody",
    "outputs",
    "uploads",
    "receipts",
    "attempts",
    "consents",
    "accounts",
    "credit_entries",
)


async def user_of(api: Api) -> str:
    user_id = await api.services.stores.users.find(api.token)
    assert user_id is not None
    return user_id


async def is_nothing_left(settings: Settings) -> bool:
    """No row of any user, and no blob."""
    return not blobs(settings) and not any([await count(settings, table) for table in TABLES])


async def public(api: Api, request_id: str) -> httpx.Response:
    return await api.http.get(f"/v1/privacy/requests/{request_id}")


async def test_the_summary_counts_what_is_held(api: Api) -> None:
    """imaginex-6: whether data is processed, and how much of it, by what it is."""
    user_id = await user_of(api)
    fresh = (await api.get("/v1/me")).json()
    assert fresh["id"] == user_id
    assert fresh["created_on"] == fresh["last_seen_on"]
    assert (fresh["jobs"], fresh["is_restricted"], fresh["is_erasing"]) == ({}, False, False)
    assert fresh["held"] == {**dict.fromkeys(fresh["held"], 0), "audit_events": 1}  # that the user was made

    await api.finished(b"an output")
    await api.queued()
    await api.services.stores.credits.grant(user_id, 5, reference="order-1")
    shown = (await api.get("/v1/me")).json()
    assert shown["jobs"] == {"queued": 1, "succeeded": 1}
    assert (shown["held"]["outputs"], shown["held"]["receipts"], shown["held"]["credit_entries"]) == (1, 1, 1)
    assert (shown["credits"], shown["credits_held"]) == (5, 0)


async def test_everything_goes_at_once(api: Api, settings: Settings) -> None:
    """
    xpictures-8, m2r-4, headpix-3, core-6: live jobs, outputs, records and the user; receipts come back, and no key
    stays.
    """
    keys = await keys_held(api.services)
    user_id = await user_of(api)
    done = await api.finished(b"an output")
    live = await api.queued()
    await api.services.stores.credits.grant(user_id, 5, reference="order-1")

    answer = await api.delete("/v1/me")
    assert answer.status_code == 200, answer.text
    erased = answer.json()
    request = erased["request"]
    assert (request["kind"], request["status"]) == ("erasure", "completed")
    assert {"destroyed_at", "completed_at", "expected_by", "answer_by"} <= request.keys()
    signed = [verify(note, [api.services.signer.vkey]) for note in erased["receipts"]]
    assert {(str(stated.job), stated.outcome) for stated in signed} == {
        (done["id"], "succeeded"),
        (live["id"], "canceled"),
    }
    assert erased["receipts_left_out"] == 0

    assert await is_nothing_left(settings)
    assert await keys_held(api.services) <= keys
    assert (await api.get("/v1/me")).status_code == 401


async def test_asking_twice_is_fine(api: Api, settings: Settings) -> None:
    """The same request, once the user is gone too; a token that nobody ever had is refused."""
    await api.finished(b"an output")
    first = (await api.delete("/v1/me")).json()
    again = await api.delete("/v1/me")
    assert again.status_code == 200
    assert again.json() == {"request": first["request"], "receipts": [], "receipts_left_out": 0}
    assert (await public(api, first["request"]["id"])).json() == first["request"]

    api.token = "lethe_" + "x" * 43
    assert (await api.delete("/v1/me")).status_code == 401
    assert (await api.http.delete("/v1/me")).status_code == 401
    assert await count(settings, "requests") == 1


async def test_two_erasures_at_once_are_one(api: Api, settings: Settings) -> None:
    """One request, and every receipt comes back once."""
    for _ in range(5):
        await api.finished(b"an output")
    answers = await asyncio.gather(*(api.delete("/v1/me") for _ in range(4)))
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert len({answer.json()["request"]["id"] for answer in answers}) == 1
    notes = [note for answer in answers for note in answer.json()["receipts"]]
    assert len(notes) == len(set(notes)) == 5
    assert await is_nothing_left(settings)
    assert (await api.delete("/v1/me")).json()["request"]["status"] == "completed"


async def test_what_comes_in_meanwhile_is_refused_or_destroyed(api: Api, settings: Settings) -> None:
    """Uploads in flight while the user is erased: whatever they are answered, no row, blob or key of them stays."""
    keys = await keys_held(api.services)
    sending = [asyncio.create_task(api.put(upload_bytes(400_000))) for _ in range(6)]
    await eventually(lambda: count(settings, "jobs"))  # the first is on its way in
    erasing = asyncio.create_task(api.delete("/v1/me"))
    sending += [asyncio.create_task(api.put(upload_bytes(100_000))) for _ in range(6)]
    answers = await asyncio.gather(*sending)
    assert {answer.status_code for answer in answers} <= {202, 401, 409, 429}
    assert (await erasing).status_code in {200, 202}

    async def is_over() -> bool:
        return await is_nothing_left(settings) and await keys_held(api.services) <= keys

    await eventually(is_over, within_s=40)
    assert (await api.delete("/v1/me")).json()["request"]["status"] == "completed"


async def test_an_erasing_user_gets_nothing(api: Api, settings: Settings) -> None:
    """409 `erasing` to a job, an export, a restriction and an objection, and no job gets past the door behind it."""
    await run_sql(settings, "UPDATE users SET erasing_at = now() WHERE id = $1", await user_of(api))
    answers = [
        await api.put(upload_bytes()),
        await api.get("/v1/me/export"),
        await api.http.put("/v1/me/restriction", json={"restricted": True}, headers=api.auth),
        await api.http.post("/v1/me/objections", headers=api.auth),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "erasing")] * 4
    assert (await api.get("/v1/me")).json()["is_erasing"] is True


async def test_a_request_that_nobody_made_is_not_found(api: Api) -> None:
    """404, whoever asks."""
    answer = await public(api, str(uuid4()))
    assert (answer.status_code, answer.json()["code"]) == (404, "request_not_found")


async def test_a_request_is_found_by_whoever_had_the_token(api: Api) -> None:
    """Its id is made of the token alone, so that an answer that was lost costs nothing."""
    made = (await api.delete("/v1/me")).json()["request"]["id"]
    assert made == str(erasure_id(api.token))


async def test_a_restriction_takes_nothing_in_and_loses_nothing(api: Api) -> None:
    """headpix-5: new jobs are refused, what is there stays as it was, and the user can lift it."""
    done = await api.finished(b"an output")
    body, job_id = upload_bytes(), uuid4()
    running = (await api.put(body, job_id)).json()
    shown = await api.http.put("/v1/me/restriction", json={"restricted": True}, headers=api.auth)
    assert shown.status_code == 200
    assert (shown.json()["is_restricted"], shown.json()["request"]["status"]) == (True, "completed")
    again = await api.http.put("/v1/me/restriction", json={"restricted": True}, headers=api.auth)
    assert again.json() == {"is_restricted": True}

    refused = await api.put(upload_bytes())
    assert (refused.status_code, refused.json()["code"]) == (403, "restricted")
    assert (await api.put(body, job_id)).json()["id"] == running["id"]
    assert (await api.get(f"/v1/jobs/{done['id']}/outputs/0")).content == b"an output"
    await api.ended(running, Outcome.SUCCEEDED, outputs=(b"another",))
    assert (await api.get(f"/v1/jobs/{running['id']}/outputs/0")).content == b"another"
    assert (await api.get("/v1/me")).json()["is_restricted"] is True

    lifted = await api.http.put("/v1/me/restriction", json={"restricted": False}, headers=api.auth)
    assert lifted.json()["is_restricted"] is False
    assert (await api.put(upload_bytes())).status_code == 202
    kinds = [item["kind"] for item in (await api.get("/v1/me/requests")).json()["items"]]
    assert kinds == ["restriction", "restriction"]


async def test_a_restriction_is_asked_of_postgres_too(api: Api) -> None:
    """A job that passed the door while its user's word was being written meets it in the insert."""
    user_id = await user_of(api)
    await api.services.stores.requests.restrict(user_id, is_restricted=True)
    look = api.services.stores.jobs.look

    async def look_too_early(of: str, public_id: object) -> object:
        known, usage = await look(of, public_id)  # pyright: ignore[reportArgumentType]
        return known, msgspec.structs.replace(usage, is_restricted=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api.services.stores.jobs, "look", look_too_early)
        refused = await api.put(upload_bytes())
    assert (refused.status_code, refused.json()["code"]) == (403, "restricted")


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        (b'{"restricted": "yes"}', 422, "#/restricted"),
        (b"{}", 422, "#/restricted"),
        (b'{"restricted": true, "why": "x"}', 422, "#/why"),
        (b"[", 400, None),
    ],
)
async def test_a_restriction_is_read_strictly(api: Api, body: bytes, status: int, pointer: str | None) -> None:
    """Refused with a pointer; nothing changes."""
    headers = {**api.auth, "Content-Type": "application/json"}
    answer = await api.http.put("/v1/me/restriction", content=body, headers=headers)
    assert answer.status_code == status
    assert [fault["pointer"] for fault in answer.json().get("errors", [])] == ([pointer] if pointer else [])
    assert (await api.get("/v1/me")).json()["is_restricted"] is False


async def test_an_objection_withdraws_what_is_optional(settings: Settings, tmp_path: Path) -> None:
    """Consent to every optional purpose is withdrawn, to the required one it stays; the objection is recorded."""
    async with broker_with(settings_under(settings, tmp_path, ASKING)) as api:
        notice = (await api.http.get("/v1/privacy/notice")).json()["current"]["version"]
        order = {"notice_version": notice, "give": ["processing", "push", "marketing"]}
        await api.http.put("/v1/me/consents", json=order, headers=api.auth)
        answer = await api.http.post("/v1/me/objections", headers=api.auth)
        assert answer.status_code == 200
        assert answer.json()["withdrawn"] == ["push", "marketing"]
        assert (answer.json()["request"]["kind"], answer.json()["request"]["status"]) == ("objection", "completed")
        states = {c["purpose"]: c["status"] for c in (await api.get("/v1/me/consents")).json()["consents"]}
        assert states == {"processing": "given", "push": "withdrawn", "marketing": "withdrawn"}
        assert (await api.put(upload_bytes())).status_code == 202


async def test_an_erasure_is_never_counted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much a user asked for before."""
    monkeypatch.setattr(requests, "MOST_A_DAY", 1)
    assert (await api.get("/v1/me/export")).status_code == 200
    assert (await api.get("/v1/me/export")).status_code == 429
    assert (await api.delete("/v1/me")).status_code == 200


async def test_rights_are_the_users_own(api: Api) -> None:
    """Another user's export, requests and erasure touch nothing of this one's."""
    done = await api.finished(b"an output")
    other = (await api.http.post("/v1/users")).json()
    auth = {"Authorization": f"Bearer {other['token']}"}
    assert (await api.http.get("/v1/me/export", headers=auth)).json()["jobs"] == []
    assert (await api.http.delete("/v1/me", headers=auth)).json()["receipts"] == []
    assert (await api.get(f"/v1/jobs/{done['id']}/outputs/0")).content == b"an output"
    await pretend_worker(api.services)
    assert (await api.get("/v1/me/requests")).json() == {"items": []}

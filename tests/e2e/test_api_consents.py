"""Consent over HTTP: asked before a job, given and withdrawn per purpose for one notice, and recorded for good."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from broker.jobs import Outcome
from broker.notices.consent_record import ConsentRecord
from broker.settings import Settings
from broker.store import consents
from tests.api_client import Api
from tests.brokers import broker_with
from tests.notices import announced, facts_under, let_its_day_come, old_and_new
from tests.profiles import settings_under
from tests.stack import upload_bytes

CONSENTS = "/v1/me/consents"
ASKING = '[consent]\nrequired = ["processing", "providers"]\noptional = ["push"]\nmin_age = 13\nannounce_days = 14'
BOTH = ["processing", "providers"]


@pytest.fixture
async def asking(settings: Settings, tmp_path: Path) -> AsyncGenerator[Api]:
    """A broker whose profile asks for two purposes and an age."""
    async with broker_with(settings_under(settings, tmp_path, ASKING)) as api:
        yield api


async def put(api: Api, **order: object) -> httpx.Response:
    return await api.http.put(CONSENTS, json=order, headers=api.auth)


async def version(api: Api, which: str = "current") -> str:
    return (await api.http.get("/v1/privacy/notice")).json()[which]["version"]


async def give(api: Api, notice: str, *purposes: str) -> dict[str, Any]:
    answer = await put(api, notice_version=notice, give=list(purposes), is_of_age=True)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def code_of_a_job(api: Api) -> str:
    answer = await api.put(upload_bytes())
    return "taken" if answer.status_code == 202 else answer.json()["code"]


async def test_without_consent_no_job_enters(asking: Api) -> None:
    """xpictures-12: 403 with the notice and the purposes that are missing, nothing is kept; with them it is taken."""
    refused = await asking.put(upload_bytes())
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (403, "consent_required")
    assert problem["notice_version"] == await version(asking)
    assert problem["purposes"] == BOTH
    assert "at least 13" in problem["detail"]
    assert (await asking.get("/v1/jobs")).json() == {"items": []}

    shown = await give(asking, await version(asking), "processing")
    assert shown["missing"] == ["providers"]
    assert (await asking.put(upload_bytes())).json()["purposes"] == ["providers"]

    await give(asking, await version(asking), "providers")
    assert await code_of_a_job(asking) == "taken"


async def test_a_post_is_asked_too(asking: Api) -> None:
    """Whichever way a job comes."""
    order = {"operation": "upscale"}
    form = {"job": (None, msgspec.json.encode(order), "application/json"), "picture": ("p", upload_bytes())}
    answer = await asking.http.post("/v1/jobs", files=form, headers={**asking.auth, "Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (403, "consent_required")


async def test_a_repeated_request_is_answered_after_a_withdrawal(asking: Api) -> None:
    """A job that was taken in stays what it is."""
    await give(asking, await version(asking), *BOTH)
    body, job_id = upload_bytes(), uuid4()
    assert (await asking.put(body, job_id)).status_code == 202
    await put(asking, notice_version=await version(asking), withdraw=["providers"])
    assert (await asking.put(body, job_id)).status_code == 202


async def test_a_withdrawal_stops_new_jobs_and_no_running_one(asking: Api) -> None:
    """At any time and at once, in every broker; what runs comes to its end, and giving it again opens the door."""
    await give(asking, await version(asking), *BOTH)
    running = (await asking.put(upload_bytes())).json()
    answer = await put(asking, notice_version=await version(asking), withdraw=["processing"])
    assert answer.json()["missing"] == ["processing"]
    assert await code_of_a_job(asking) == "consent_required"

    await asking.ended(running, Outcome.SUCCEEDED, outputs=(b"result",))
    assert (await asking.get(f"/v1/jobs/{running['id']}")).json()["status"] == "succeeded"

    await give(asking, await version(asking), "processing")
    assert await code_of_a_job(asking) == "taken"


async def test_who_is_too_young_is_refused(asking: Api) -> None:
    """xpictures-12: 403 `under_age`, and nothing of it is kept; an age that is not stated is asked for."""
    young = await put(asking, notice_version=await version(asking), give=BOTH, is_of_age=False)
    assert (young.status_code, young.json()["code"]) == (403, "under_age")
    silent = await put(asking, notice_version=await version(asking), give=BOTH)
    assert (silent.status_code, silent.json()["code"]) == (422, "invalid_parameter")
    assert silent.json()["errors"][0]["pointer"] == "#/is_of_age"
    shown = (await asking.get(CONSENTS)).json()
    assert (shown["records"], shown["is_of_age"], shown["min_age"]) == ([], False, 13)
    assert await code_of_a_job(asking) == "consent_required"


async def test_a_higher_age_is_asked_again(asking: Api, settings: Settings, tmp_path: Path) -> None:
    """Who stated to be 13 did not state to be 16."""
    await give(asking, await version(asking), *BOTH)
    older = ASKING.replace("min_age = 13", "min_age = 16").replace("announce_days = 14", "announce_days = 0")
    async with broker_with(settings_under(settings, tmp_path, older)) as api:
        api.token = asking.token
        refused = (await api.put(upload_bytes())).json()
        assert refused["code"] == "consent_required"
        assert "at least 16" in refused["detail"]
        assert (await give(api, await version(api), *BOTH))["is_of_age"]
        assert await code_of_a_job(api) == "taken"


@pytest.mark.parametrize(
    ("order", "status", "code", "pointer"),
    [
        ({"notice_version": "2026-01-01.00000000", "give": ["processing"]}, 422, "unknown_notice", "#/notice_version"),
        ({"notice_version": "", "withdraw": ["processing"]}, 422, "unknown_notice", "#/notice_version"),
        ({"give": ["processing"]}, 422, "invalid_parameter", "#/notice_version"),
        ({"notice_version": 7, "give": ["processing"]}, 422, "invalid_parameter", "#/notice_version"),
        ({"notice_version": "current", "give": ["selling"]}, 422, "invalid_parameter", "#/give"),
        ({"notice_version": "current", "give": ["marketing"]}, 422, "invalid_parameter", "#/give"),
        ({"notice_version": "current", "give": "processing"}, 422, "invalid_parameter", "#/give"),
        ({"notice_version": "current", "give": [["processing"]]}, 422, "invalid_parameter", "#/give"),
        ({"notice_version": "current", "give": ["push"], "withdraw": ["push"]}, 422, "invalid_parameter", "#/withdraw"),
        ({"notice_version": "current"}, 422, "invalid_parameter", "#/give"),
        ({"notice_version": "current", "give": ["push"], "is_of_age": "yes"}, 422, "invalid_parameter", "#/is_of_age"),
        ({"notice_version": "current", "give": ["push"], "age": 15}, 422, "invalid_parameter", "#/age"),
    ],
)
async def test_what_cannot_be_agreed_to_is_refused(
    asking: Api, order: dict[str, object], status: int, code: str, pointer: str
) -> None:
    """A version that does not exist, a purpose that is not asked for, what contradicts itself: with a pointer."""
    if order.get("notice_version") == "current":
        order = {"is_of_age": True, **order, "notice_version": await version(asking)}
    answer = await put(asking, **order)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["errors"][0]["pointer"]) == (status, code, pointer)
    assert (await asking.get(CONSENTS)).json()["records"] == []


async def test_a_version_that_no_longer_holds_can_only_be_withdrawn_from(asking: Api, settings: Settings) -> None:
    """Giving names one that holds, or will."""
    former = await version(asking)
    changed = facts_under(settings, ASKING, records_for_s="86_400")
    await announced(settings, changed, version="newest", since_s=0, effective_s=0)
    refused = await put(asking, notice_version=former, give=BOTH, is_of_age=True)
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_notice")
    assert "newest" in refused.json()["detail"]
    assert (await put(asking, notice_version=former, withdraw=BOTH)).status_code == 200


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {"Content-Type": "application/json"}, 400, "invalid_json"),
        (b'{"give": [], "give": []}', {"Content-Type": "application/json"}, 400, "invalid_json"),
        (b"[]", {"Content-Type": "application/json"}, 400, "invalid_json"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b"{" + b" " * 9_000, {"Content-Type": "application/json"}, 413, "upload_too_large"),
    ],
)
async def test_a_body_that_is_none_is_refused(
    asking: Api, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """No JSON, a repeated name, another kind, too long."""
    answer = await asking.http.put(CONSENTS, content=body, headers={**asking.auth, **headers})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_consents_are_the_users_own(asking: Api) -> None:
    """A token is needed, and nobody sees or gives another's."""
    for answer in (await asking.http.get(CONSENTS), await asking.http.put(CONSENTS, json={})):
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    await give(asking, await version(asking), *BOTH)
    other = (await asking.http.post("/v1/users")).json()["token"]
    shown = (await asking.http.get(CONSENTS, headers={"Authorization": f"Bearer {other}"})).json()
    assert (shown["records"], shown["missing"]) == ([], BOTH)


async def test_every_change_is_a_record_in_the_shape_of_the_specification(asking: Api) -> None:
    """ISO/IEC TS 27560: header, processing, party, event; one purpose each; the same again adds nothing."""
    notice = await version(asking)
    for _ in range(2):
        await give(asking, notice, "processing", "push")
    await put(asking, notice_version=notice, withdraw=["push", "marketing"])
    shown = (await put(asking, notice_version=notice, withdraw=["push"])).json()

    records = msgspec.convert(shown["records"], list[ConsentRecord])
    events = [(r.pii_processing[0].purposes[0].purpose_type, r.event.event_state) for r in records]
    assert events == [("processing", "consent_given"), ("push", "consent_given"), ("push", "consent_withdrawn")]
    assert len({record.record_id for record in records}) == 3
    first = records[0]
    assert first.schema_version.endswith("(ISO/IEC TS 27560:2023)")
    assert first.pii_principal_id.startswith("usr_")
    assert first.pii_processing[0].notice_version == notice
    assert first.pii_processing[0].purposes[0].lawful_basis == "consent"
    assert first.party_identification[0].party_role == "PII controller"
    assert (first.event.stated_age, records[2].event.stated_age) == (13, msgspec.UNSET)
    assert (await asking.http.get(first.pii_processing[0].privacy_notice)).status_code == 200
    states = {state["purpose"]: state["status"] for state in shown["consents"]}
    assert states == {"processing": "given", "providers": "not_given", "push": "withdrawn"}


async def test_consent_to_what_is_announced_counts_from_its_day_on(settings: Settings, tmp_path: Path) -> None:
    """headpix-7: given ahead it holds at once when the day has come; who said nothing is asked again."""
    await old_and_new(settings, ASKING)
    async with broker_with(settings_under(settings, tmp_path, ASKING)) as api:
        await give(api, "new", *BOTH)
        assert await code_of_a_job(api) == "consent_required"  # the old text is what holds
        await give(api, "old", *BOTH)
        assert await code_of_a_job(api) == "taken"
        early, late = api.token, (await api.http.post("/v1/users")).json()["token"]
        api.token = late
        await give(api, "old", *BOTH)
        assert await code_of_a_job(api) == "taken"

        await let_its_day_come(settings, "new")
        assert await version(api) == "new"
        assert await code_of_a_job(api) == "consent_required"
        api.token = early
        assert await code_of_a_job(api) == "taken"


async def test_a_withdrawal_within_the_period_is_honoured(settings: Settings, tmp_path: Path) -> None:
    """headpix-7: who hears of a change and withdraws is out at once, and stays out when it takes effect."""
    await old_and_new(settings, ASKING)
    async with broker_with(settings_under(settings, tmp_path, ASKING)) as api:
        await give(api, "old", *BOTH)
        await give(api, "new", *BOTH)
        assert (await put(api, notice_version="new", withdraw=BOTH)).status_code == 200
        assert await code_of_a_job(api) == "consent_required"

        await let_its_day_come(settings, "new")
        assert await version(api) == "new"
        assert await code_of_a_job(api) == "consent_required"


async def test_nobody_fills_the_table(asking: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many changes a day; a withdrawal always counts."""
    monkeypatch.setattr(consents, "MOST_A_DAY", 2)
    notice = await version(asking)
    await give(asking, notice, *BOTH)
    full = await put(asking, notice_version=notice, give=["push"], is_of_age=True)
    assert (full.status_code, full.json()["code"]) == (429, "too_many_requests")
    assert (await put(asking, notice_version=notice, withdraw=BOTH)).json()["missing"] == BOTH


async def test_a_profile_that_asks_for_nothing_reads_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The minimal profile's admission costs no statement more, and what nobody asks for cannot be given."""

    async def never(_: str) -> None:
        raise AssertionError("consents were looked up")

    monkeypatch.setattr(api.services.stores.consents, "standing", never)
    assert await code_of_a_job(api) == "taken"
    monkeypatch.undo()
    answer = await put(api, notice_version=await version(api), give=["processing"])
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/give")

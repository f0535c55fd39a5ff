"""Notifications over HTTP: where somebody is told is said with the job, and each kind can be switched off."""

from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from broker.jobs import Outcome
from broker.notify.webhook_keys import new_keys
from broker.settings import Settings, SettingsInvalid
from tests.api_client import Api
from tests.brokers import broker_with
from tests.forms import CONTENT_TYPE, form_of, job_part, picture_part
from tests.lifecycle import count, eventually
from tests.profiles import settings_under
from tests.stack import running_services, upload_bytes
from tests.telling import HOOK, World, wired_world

NOTIFICATIONS = "/v1/me/notifications"
PHONE = "fcm:dQw4:APA91bH-kingfisher"
ASKING = '[consent]\noptional = ["push", "marketing"]'


@pytest.fixture
async def outside(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World]:
    async with wired_world(monkeypatch, every_s=0.05) as there:
        yield there


@pytest.fixture
async def api(settings: Settings, outside: World) -> AsyncGenerator[Api]:
    async with broker_with(settings) as made:
        yield made


@pytest.fixture
async def asking(settings: Settings, outside: World, tmp_path: Path) -> AsyncGenerator[Api]:
    """Under a profile that asks for consent to push, and to marketing."""
    async with broker_with(settings_under(settings, tmp_path, ASKING)) as made:
        yield made


async def switch(api: Api, **order: object) -> httpx.Response:
    return await api.http.put(NOTIFICATIONS, json=order, headers=api.auth)


async def consent(api: Api, **order: object) -> None:
    notice = (await api.http.get("/v1/privacy/notice")).json()["current"]["version"]
    answer = await api.http.put("/v1/me/consents", json={"notice_version": notice, **order}, headers=api.auth)
    assert answer.status_code == 200, answer.text


async def put(api: Api, headers: dict[str, str], job_id: UUID | None = None, body: bytes = b"") -> httpx.Response:
    url = f"/v1/jobs/{job_id or uuid4()}?operation=noop"
    return await api.http.put(url, content=body or upload_bytes(), headers={**api.auth, **headers})


async def posted(api: Api, **fields: object) -> httpx.Response:
    body = form_of(job_part("noop", parameters={}, **fields), picture_part(upload_bytes()))
    headers = {**api.auth, "Content-Type": CONTENT_TYPE, "Idempotency-Key": str(uuid4())}
    return await api.http.post("/v1/jobs", content=body, headers=headers)


async def test_a_phone_and_a_server_are_told(api: Api, outside: World) -> None:
    """xpictures-6: the job is sent with a URL and a token in headers; when it has ended both are told its id."""
    shown = (await api.put(upload_bytes(), Lethe_Notify_Webhook=HOOK, Lethe_Notify_Push=PHONE)).json()
    assert "notify" not in str(shown)
    await api.ended(shown, Outcome.SUCCEEDED)

    async def are_told() -> bool:
        return bool(outside.receiver.events and outside.fcm.messages)

    await eventually(are_told)
    (event,) = outside.receiver.events.values()
    assert (event["type"], event["data"]) == ("job.succeeded", {"id": shown["id"]})
    assert outside.fcm.messages[0].data == {"job": shown["id"], "type": "job.succeeded"}
    assert outside.fcm.messages[0].token == PHONE.removeprefix("fcm:")
    assert (await api.get(f"/v1/jobs/{shown['id']}/receipt")).status_code == 200
    await eventually(lambda: nothing_waits(api))


async def nothing_waits(api: Api) -> bool:
    return await count(api.services.settings, "notifications") == 0


async def test_a_post_says_it_in_its_json(api: Api, outside: World) -> None:
    """Under the same names without the prefix; the JSON counts where a header says something else."""
    answer = await posted(api, notify_webhook=HOOK, notify_push=PHONE)
    assert answer.status_code == 202, answer.text
    assert await count(api.services.settings, "notifications") == 2
    await api.ended(answer.json(), Outcome.FAILED, code="internal")
    await eventually(lambda: nothing_waits(api))
    assert {event["type"] for event in outside.receiver.events.values()} == {"job.failed"}


async def test_a_repeated_request_tells_once(api: Api) -> None:
    """The same id again, with another token or none, is the job that is there: its first word counts."""
    body, job_id = upload_bytes(), uuid4()
    for headers in ({"Lethe-Notify-Push": PHONE}, {"Lethe-Notify-Push": "fcm:other"}, {}):
        assert (await put(api, headers, job_id, body)).status_code == 202
    assert await count(api.services.settings, "notifications") == 1
    assert await count(api.services.settings, "notifications", "target = 'other'") == 0


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("webhook", "http://app.example/", "invalid_webhook"),
        ("webhook", "https://app.example:8443/", "invalid_webhook"),
        ("webhook", "hello there", "invalid_webhook"),
        ("push", "apns:kingfisher", "invalid_push_token"),
        ("push", "fcm:a b", "invalid_push_token"),
        ("push", "", "invalid_push_token"),
    ],
)
async def test_what_leads_nowhere_is_refused(api: Api, name: str, value: str, code: str) -> None:
    """422 with a pointer to the header or the member, and nothing is kept."""
    by_header = await put(api, {f"Lethe-Notify-{name.title()}": value})
    by_member = await posted(api, **{f"notify_{name}": value})
    for answer, pointer in ((by_header, f"#/headers/Lethe-Notify-{name.title()}"), (by_member, f"#/notify_{name}")):
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, code)
        assert problem["errors"][0]["pointer"] == pointer
        assert value == "" or value not in answer.text
    assert (await api.get("/v1/jobs")).json() == {"items": []}
    assert (await posted(api, **{f"notify_{name}": 5})).json()["code"] == "invalid_parameter"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "10.0.0.5", "169.254.169.254", "localhost", "2130706433"])
async def test_a_webhook_in_a_private_range_is_refused(settings: Settings, tmp_path: Path, host: str) -> None:
    """By a broker as it is wired, with the system's resolver: 422 `invalid_webhook`, and nothing is kept."""
    file = tmp_path / "keys"
    file.write_text(new_keys()[0])
    async with broker_with(msgspec.structs.replace(settings, webhook_keys_file=str(file))) as api:
        answer = await api.put(upload_bytes(), Lethe_Notify_Webhook=f"https://{host}/hook")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_webhook")
        assert answer.json()["errors"][0]["pointer"] == "#/headers/Lethe-Notify-Webhook"
        assert (await api.get("/v1/jobs")).json() == {"items": []}


async def test_what_is_not_set_up_is_refused(settings: Settings) -> None:
    """A broker without keys and account says so, instead of taking what it will never send."""
    async with broker_with(settings) as api:
        for name, value in (("Webhook", HOOK), ("Push", PHONE)):
            answer = await put(api, {f"Lethe-Notify-{name}": value})
            assert (answer.status_code, answer.json()["code"]) == (422, "notification_unavailable")
            assert answer.json()["errors"][0]["pointer"] == f"#/headers/Lethe-Notify-{name}"
        assert (await api.put(upload_bytes())).status_code == 202


async def test_a_key_file_that_is_wrong_stops_the_start(settings: Settings, tmp_path: Path) -> None:
    """Named by its setting."""
    for name in ("webhook_keys_file", "fcm_account_file", "apns_key_file"):
        wrong = msgspec.structs.replace(settings, **{name: str(tmp_path / "none")})
        with pytest.raises(SettingsInvalid, match=f"LETHE_{name.upper()}"):
            async with running_services(wrong):
                pass


async def test_push_needs_the_consent_that_is_asked_for(asking: Api, outside: World) -> None:
    """m2r-9: a token without it is refused and named; with it taken; refused one by one, marketing stays as it was."""
    refused = await asking.put(upload_bytes(), Lethe_Notify_Push=PHONE)
    assert (refused.status_code, refused.json()["code"], refused.json()["purposes"]) == (
        403,
        "consent_required",
        ["push"],
    )
    assert (await asking.put(upload_bytes(), Lethe_Notify_Webhook=HOOK)).status_code == 202
    await consent(asking, give=["push", "marketing"])
    assert (await asking.put(upload_bytes(), Lethe_Notify_Push=PHONE)).status_code == 202
    await consent(asking, withdraw=["push"])
    assert (await asking.put(upload_bytes(), Lethe_Notify_Push=PHONE)).status_code == 403
    shown = (await asking.get("/v1/me/consents")).json()["consents"]
    assert {one["purpose"]: one["status"] for one in shown} == {"push": "withdrawn", "marketing": "given"}


async def test_each_kind_is_switched_off(api: Api, outside: World) -> None:
    """xpictures-6: both are on until their user says otherwise; off, the job is taken and its token is not kept."""
    assert (await api.get(NOTIFICATIONS)).json() == {"webhook": True, "push": True}
    await api.put(upload_bytes(), Lethe_Notify_Webhook=HOOK, Lethe_Notify_Push=PHONE)
    assert (await switch(api, push=False, webhook=True)).json() == {"webhook": True, "push": False}
    assert await count(api.services.settings, "notifications", "channel = 'fcm'") == 0
    taken = await api.put(upload_bytes(), Lethe_Notify_Webhook=HOOK, Lethe_Notify_Push=PHONE)
    assert taken.status_code == 202
    await api.ended(taken.json(), Outcome.SUCCEEDED)

    async def is_told() -> bool:
        return bool(outside.receiver.events)

    await eventually(is_told)
    assert outside.fcm.messages == []
    assert (await switch(api, push=False, webhook=False)).json() == {"webhook": False, "push": False}
    assert await nothing_waits(api)
    assert (await api.get(NOTIFICATIONS)).json() == {"webhook": False, "push": False}


@pytest.mark.parametrize("order", [{}, {"push": True}, {"push": "no", "webhook": True}, {"push": 1, "webhook": 1}])
async def test_a_switch_is_on_or_off(api: Api, order: dict[str, object]) -> None:
    """Both are named, as true or false, and nothing else is."""
    answer = await switch(api, **order)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert (await switch(api, push=True, webhook=True, mail=True)).json()["errors"][0]["pointer"] == "#/mail"


async def test_only_the_user_switches(api: Api) -> None:
    """401 without a token."""
    assert (await api.http.get(NOTIFICATIONS)).status_code == 401
    assert (await api.http.put(NOTIFICATIONS, json={"push": True, "webhook": True})).status_code == 401


async def test_it_is_in_the_export_while_it_waits(api: Api) -> None:
    """What is held is shown: where somebody is told, and what is off."""
    await api.put(upload_bytes(), Lethe_Notify_Push=PHONE)
    await switch(api, push=True, webhook=False)
    document = (await api.get("/v1/me/export")).json()
    (waiting,) = document["jobs"][0]["notifications"]
    assert (waiting["channel"], waiting["target"]) == ("fcm", PHONE.removeprefix("fcm:"))
    assert document["user"]["muted"] == ["webhook"]
    assert (await api.get("/v1/me")).json()["held"]["notifications"] == 1

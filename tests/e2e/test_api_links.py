"""Sign-in without identity: a link brings its user to the same anonymous id on each device, and nothing says who."""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest

from broker.operators import new_key
from broker.rights import erasure_id
from broker.settings import Settings, SettingsInvalid
from broker.subjects import Subjects
from tests.api_client import Api
from tests.brokers import broker_with
from tests.browsers import browser_of
from tests.checks import plant
from tests.e2e.test_api_export import SCHEMA
from tests.e2e.test_api_sealed import OPENER, Phone, made
from tests.lifecycle import count, rows_of, run_sql
from tests.profiles import GALLERY, with_profile

ADDRESS = b"somebody@example.org"
SUBJECT = hmac.digest(b"the app's own key", ADDRESS, hashlib.sha256).hex()
KEY = secrets.token_hex(32)


class Desk:
    """The app's own server, at the operator's listener."""

    def __init__(self, api: Api, key: str) -> None:
        self.api = api
        self.key = key

    async def post(self, path: str, **order: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return await self.api.http.post(f"{self.api.operator_url}{path}", json=order, headers=headers)

    async def link(self, subject: str = SUBJECT) -> httpx.Response:
        return await self.post("/links", subject=subject, token=self.api.token)

    async def second_device(self) -> Api:
        """Another phone of the same user: it has nothing but what the app's server gives to who signs in."""
        answer = await self.post("/links/token", subject=SUBJECT)
        assert answer.status_code == 201, answer.text
        api = self.api
        token = plant(answer.json()["token"])
        return Api(api.http, api.services, url=api.url, operator_url=api.operator_url, token=token)


def signing_in(settings: Settings, folder: Path, line: str) -> Settings:
    """Settings that let one operator in, and hash subjects under KEY."""
    operators, subjects = folder / "operators", folder / "subjects"
    operators.write_text(line + "\n")
    subjects.write_text(KEY + "\n")
    return msgspec.structs.replace(settings, operator_keys_file=str(operators), subject_key_file=str(subjects))


@pytest.fixture
async def desk(settings: Settings, tmp_path: Path) -> AsyncGenerator[Desk]:
    key, line = new_key("app")
    async with broker_with(signing_in(settings, tmp_path, line)) as api:
        yield Desk(api, key)


async def id_of(api: Api) -> str:
    return (await api.get("/v1/me")).json()["id"]


async def test_a_second_device_reaches_the_same_id(desk: Desk) -> None:
    """m2r-8, m2r-4: the results of the first phone, on the second; either token works, each device has its own."""
    done = await desk.api.finished(b"an output")
    linked = await desk.link()
    assert (linked.status_code, linked.json()) == (201, {"user_id": await id_of(desk.api), "is_new": True})

    second = await desk.second_device()
    assert second.token != desk.api.token
    assert await id_of(second) == await id_of(desk.api)
    assert (await second.get(f"/v1/jobs/{done['id']}/outputs/0")).content == b"an output"
    made = await second.finished(b"another")
    assert (await desk.api.get(f"/v1/jobs/{made['id']}/outputs/0")).content == b"another"


async def test_a_gallery_that_we_cannot_open_is_there_on_a_second_device(settings: Settings, tmp_path: Path) -> None:
    """m2r-4: a token brings the second phone to the gallery, and the first phone, not the server, lets it open it."""
    key, line = new_key("app")
    async with broker_with(with_profile(signing_in(settings, tmp_path, line), tmp_path, GALLERY)) as api:
        desk, phone = Desk(api, key), await Phone.new(api)
        done = await made(api, b"a portrait")
        await desk.link()
        second = await desk.second_device()
        tablet = await Phone.new(second)
        listed = (await second.get("/v1/outputs")).json()["items"]
        assert [item["url"] for item in listed] == [f"/v1/jobs/{done['id']}/outputs/0"]
        with pytest.raises(KeyError):
            await tablet.key(done["id"])
        assert await phone.hand_on(tablet) == 1
        sealed = (await second.get(listed[0]["url"])).content
        context = OPENER.output_context(done["id"], 0)
        assert OPENER.open_sealed(await tablet.key(done["id"]), sealed, context) == b"a portrait"


async def test_a_link_is_made_once(desk: Desk) -> None:
    """The same again is the same, another user's is refused and says not whose it is; a user may have several."""
    assert (await desk.link()).status_code == 201
    again = await desk.link()
    assert (again.status_code, again.json()["is_new"]) == (200, False)
    assert (await desk.link(SUBJECT[::-1])).status_code == 201

    other = (await desk.api.http.post("/v1/users")).json()
    taken = await desk.post("/links", subject=SUBJECT, token=other["token"])
    assert (taken.status_code, taken.json()["code"]) == (409, "subject_linked")
    assert await id_of(desk.api) not in taken.text


async def test_two_devices_sign_in_at_once(desk: Desk) -> None:
    """Two ids, one subject: one of them is linked, and the other app learns that it has to ask for a token."""
    tokens = [(await desk.api.http.post("/v1/users")).json()["token"] for _ in range(8)]
    answers = await asyncio.gather(*(desk.post("/links", subject=SUBJECT, token=token) for token in tokens))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7


async def test_nothing_of_the_identity_is_stored(desk: Desk, settings: Settings) -> None:
    """m2r-8: neither the address, nor its plain digest, nor what the app's server sent is in any row or log line."""
    plant(SUBJECT)
    await desk.link()
    await desk.second_device()
    tables = await rows_of(settings, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 2200")
    rows = [row for table in tables for row in await rows_of(settings, f"SELECT t::text FROM {table['relname']} AS t")]
    text = "\n".join(row["t"] for row in rows)
    plain = hashlib.sha256(ADDRESS).hexdigest()
    for needle in (ADDRESS.decode(), ADDRESS.hex(), SUBJECT, SUBJECT.encode().hex(), plain, KEY, desk.api.token):
        assert needle not in text
    expected = hmac.digest(bytes.fromhex(KEY), SUBJECT.encode(), hashlib.sha256)
    assert expected.hex() in text


@pytest.mark.parametrize("path", ["/links", "/links/token", "/links/end"])
async def test_only_an_operator_links(desk: Desk, path: str) -> None:
    """401 without an operator key, with a user's token too; the clients' listener has no such address."""
    for key in ("", "lethe_operator_wrong", desk.api.token):
        answer = await Desk(desk.api, key).post(path, subject=SUBJECT)
        assert (answer.status_code, answer.json()["code"]) == (401, "operator_key_required")
    assert (await desk.api.http.post(path, json={})).status_code == 404


@pytest.mark.parametrize("path", ["/links", "/links/token", "/links/end"])
@pytest.mark.parametrize(
    "order",
    [
        {},
        {"subject": "somebody@example.org"},
        {"subject": SUBJECT.upper()},
        {"subject": SUBJECT[1:]},
        {"subject": SUBJECT + "\n"},
        {"subject": 7},
        {"subject": SUBJECT, "token": "x", "email": "a@b.c"},
        {"subject": SUBJECT, "token": ""},
    ],
)
async def test_an_order_is_read_strictly(desk: Desk, path: str, order: dict[str, Any]) -> None:
    """What is not a digest is refused, so that no address is ever taken in; the answer repeats nothing of it."""
    answer = await desk.post(path, **{"token": "x", **order} if path == "/links" else order)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert "example.org" not in answer.text


async def test_who_is_not_linked_is_not_found(desk: Desk) -> None:
    """404 to a token or an end that nobody's link asks for, and to a link with a token that nobody has."""
    for path in ("/links/token", "/links/end"):
        answer = await desk.post(path, subject=SUBJECT)
        assert (answer.status_code, answer.json()["code"]) == (404, "link_not_found")
    answer = await desk.post("/links", subject=SUBJECT, token="lethe_" + "x" * 43)
    assert (answer.status_code, answer.json()["code"]) == (404, "user_not_found")


async def test_what_came_of_a_link_ends_with_it(desk: Desk) -> None:
    """The tokens that it brought, and sessions that began with them; the first device keeps its own."""
    await desk.link()
    second = await desk.second_device()
    browser, own = await browser_of(second), await browser_of(desk.api)
    assert [(await one.ask("GET", "/v1/me")).status_code for one in (browser, own)] == [200, 200]

    assert (await desk.post("/links/end", subject=SUBJECT)).status_code == 204
    assert (await second.get("/v1/me")).status_code == 401
    assert [(await one.ask("GET", "/v1/me")).status_code for one in (browser, own)] == [401, 200]
    assert (await desk.api.get("/v1/me")).status_code == 200
    assert (await desk.post("/links/token", subject=SUBJECT)).status_code == 404


async def test_a_link_goes_with_its_user(desk: Desk, settings: Settings) -> None:
    """It is counted and exported before, and erased by a second device; then no token works, and none is made."""
    await desk.link()
    second = await desk.second_device()
    await browser_of(second)
    held = (await second.get("/v1/me")).json()["held"]
    assert (held["links"], held["link_tokens"], held["sessions"]) == (1, 1, 1)
    document = (await desk.api.get("/v1/me/export")).json()
    jsonschema.validate(document, msgspec.json.decode(SCHEMA.read_bytes()))
    assert [len(document[name]) for name in ("links", "link_tokens", "sessions")] == [1, 1, 1]

    erased = await second.delete("/v1/me")
    assert (erased.status_code, erased.json()["request"]["status"]) == (200, "completed")
    assert [await count(settings, table) for table in ("users", "links", "link_tokens", "sessions")] == [0] * 4
    assert [(await api.get("/v1/me")).status_code for api in (desk.api, second)] == [401, 401]
    assert (await desk.post("/links/token", subject=SUBJECT)).status_code == 404
    assert (await second.delete("/v1/me")).json()["request"] == erased.json()["request"]


async def test_two_devices_erase_at_once(desk: Desk, settings: Settings) -> None:
    """Whoever asks second gets the request that is open already, so that each can see how it stands."""
    await desk.api.finished(b"an output")
    await desk.link()
    second = await desk.second_device()
    answers = await asyncio.gather(desk.api.delete("/v1/me"), second.delete("/v1/me"))
    given = {answer.json()["request"]["id"] for answer in answers if answer.status_code in {200, 202}}
    assert len(given) == 1
    assert given <= {str(erasure_id(api.token)) for api in (desk.api, second)}
    assert {answer.status_code for answer in answers} <= {200, 202, 401}
    assert await count(settings, "requests") == 1


async def test_an_open_erasure_is_one_for_every_device(desk: Desk) -> None:
    """While it waits for a store or a provider, each token finds it."""
    await desk.link()
    second = await desk.second_device()
    begin, user_id = desk.api.services.stores.erasures.begin, await id_of(second)
    first = await begin(erasure_id(desk.api.token), user_id, answer_within_days=4)
    again = await begin(erasure_id(second.token), user_id, answer_within_days=4)
    assert first is not None
    assert again is not None
    assert again.id == first.id == erasure_id(desk.api.token)
    assert (await desk.post("/links/token", subject=SUBJECT)).status_code == 404
    assert (await desk.link(SUBJECT[::-1])).status_code == 404


async def test_tokens_that_nobody_uses_go(desk: Desk, settings: Settings) -> None:
    """After `idle_user_for_s`, by days; use is written once a day, and holds the user too."""
    await desk.link()
    used, unused = await desk.second_device(), await desk.second_device()
    await run_sql(settings, "UPDATE link_tokens SET last_seen_on = last_seen_on - 31")
    await run_sql(settings, "UPDATE users SET last_seen_on = last_seen_on - 31")
    assert (await used.get("/v1/me")).status_code == 200
    await desk.api.services.sweep.records()
    assert await count(settings, "link_tokens") == 1
    assert [(await api.get("/v1/me")).status_code for api in (used, unused, desk.api)] == [200, 401, 200]


async def test_without_a_key_nobody_is_linked(settings: Settings, tmp_path: Path) -> None:
    """501, and no other route of ours needs it."""
    key, line = new_key("app")
    without = msgspec.structs.replace(signing_in(settings, tmp_path, line), subject_key_file="")
    async with broker_with(without) as api:
        answer = await Desk(api, key).link()
        assert (answer.status_code, answer.json()["code"]) == (501, "links_not_set_up")


@pytest.mark.parametrize("text", ["", "secret", "0" * 63, "g" * 64, KEY + KEY])
def test_a_wrong_key_file_is_refused(tmp_path: Path, text: str) -> None:
    """Anything but 64 hex digits, or no file: nothing starts."""
    file = tmp_path / "subjects"
    file.write_text(text)
    with pytest.raises(SettingsInvalid, match="LETHE_SUBJECT_KEY_FILE holds"):
        Subjects(str(file))
    with pytest.raises(SettingsInvalid, match="LETHE_SUBJECT_KEY_FILE cannot be read"):
        Subjects(str(tmp_path / "not-there"))


def test_another_key_is_another_hash(tmp_path: Path) -> None:
    """What lies in one deployment says nothing about another's."""
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text(secrets.token_hex(32))
    hashes = {Subjects(str(file)).hash(SUBJECT) for file in files}
    assert len(hashes) == 2

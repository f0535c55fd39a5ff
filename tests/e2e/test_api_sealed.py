"""Devices and sealed outputs over HTTP, with a worker that the test plays."""

import asyncio
import os
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from broker.crypto.chunked import ciphertext_bytes
from broker.crypto.sealed import key_info, output_context, thumbnail_context
from broker.devices import MOST_DEVICES, PUBLIC_KEY_BYTES, WRAPPED_KEY_BYTES, Kem
from broker.settings import Settings
from tests.api_client import Api, noise
from tests.lifecycle import blobs, count, run_sql, settled
from tests.profiles import GALLERY, with_profile
from tests.sealed import KeyPair, new_pair, opened_by_typescript, python_opener
from tests.stack import Servers, settings_for, upload_bytes
from workers.outputs import Made
from workers.sealing import seal_output

BODY = noise(40_001)
SMALL = noise(999)
OPENER = python_opener()


@pytest.fixture
def settings(servers: Servers, dsn: str, tmp_path: Path) -> Settings:
    return with_profile(settings_for(servers, dsn, tmp_path), tmp_path, GALLERY)


class Phone:
    """A device of the user of `api`, as its owner's app would use it."""

    def __init__(self, api: Api, pair: KeyPair, device_id: str) -> None:
        self.api = api
        self.pair = pair
        self.id = device_id

    @classmethod
    async def new(cls, api: Api, kem: Kem = Kem.X25519) -> "Phone":
        pair = new_pair(kem)
        answer = await posted(api, pair.asked)
        assert answer.status_code == 201, answer.text
        return cls(api, pair, answer.json()["id"])

    async def key(self, job_id: str, n: int = 0) -> bytes:
        """What opens an output; KeyError where this device cannot."""
        keys = (await self.api.get(f"/v1/jobs/{job_id}/outputs/{n}/keys")).json()["items"]
        wrapped = {key["device_id"]: b64decode(key["wrapped_key"]) for key in keys}[self.id]
        return OPENER.open_key(self.pair.kem.value, self.pair.private_key, wrapped, self.info(job_id, n))

    def info(self, job_id: str, n: int) -> bytes:
        return OPENER.key_info(job_id, n, self.id, self.pair.kem.value)

    async def hand_on(self, other: "Phone") -> int:
        """Let another device open what this one can; return how many outputs were handed on."""
        handed, cursor = 0, ""
        while True:
            page = (await self.api.get(f"/v1/me/devices/{other.id}/missing?limit=2&cursor={cursor}")).json()
            for item in page["items"]:
                try:
                    key = await self.key(item["job_id"], item["n"])
                except KeyError:
                    continue
                info = other.info(item["job_id"], item["n"])
                wrapped = OPENER.wrap_key(other.pair.kem.value, other.pair.public_key, key, info)
                assert (await put_key(self.api, item["job_id"], item["n"], other.id, wrapped)).status_code == 204
                handed += 1
            if not (cursor := page.get("next", "")):
                return handed


async def posted(api: Api, body: object) -> httpx.Response:
    return await api.http.post("/v1/me/devices", json=body, headers=api.auth)


async def put_key(api: Api, job_id: str, n: int, device_id: str, wrapped: bytes) -> httpx.Response:
    url = f"/v1/jobs/{job_id}/outputs/{n}/keys/{device_id}"
    return await api.http.put(url, json={"wrapped_key": b64encode(wrapped).decode()}, headers=api.auth)


async def made(api: Api, *bodies: bytes, has_thumbnail: bool = True) -> dict[str, Any]:
    """Bring a job to a good end as a worker would; return it as the client sees it."""
    shown = await api.queued()
    job = await api.claimed(shown)
    outputs = [
        await seal_output(
            api.services.stores,
            job,
            Made(data=memoryview(body), media_type="image/jpeg", width=2, height=3),
            n=n,
            thumbnail=memoryview(SMALL) if has_thumbnail else None,
        )
        for n, body in enumerate(bodies)
    ]
    await settled(api.services, job, outputs=outputs)
    return (await api.get(f"/v1/jobs/{shown['id']}")).json()


async def test_without_a_device_nothing_is_taken_in(api: Api, settings: Settings) -> None:
    """Never silently unsealed: 409 with the way out, and nothing is kept; with a device the same request is taken."""
    body, job_id = upload_bytes(), uuid4()
    refused = await api.put(body, job_id)
    assert (refused.status_code, refused.json()["code"]) == (409, "device_key_required")
    assert "/v1/me/devices" in refused.json()["detail"]
    assert await count(settings, "jobs") == 0
    await Phone.new(api)
    assert (await api.put(body, job_id)).status_code == 202


async def test_a_device_is_registered_once(api: Api) -> None:
    """The same key is the same device; it is listed, and forgotten."""
    pair = new_pair(Kem.P256)
    first, again = await posted(api, pair.asked), await posted(api, pair.asked)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert (await api.get("/v1/me/devices")).json() == {"items": [first.json()]}
    assert first.json()["public_key"] == pair.asked["public_key"]
    path = f"/v1/me/devices/{first.json()['id']}"
    assert (await api.delete(path)).status_code == 204
    gone = await api.delete(path)
    assert (gone.status_code, gone.json()["code"]) == (404, "device_not_found")
    assert (await api.get("/v1/me/devices")).json() == {"items": []}


BASE_OFF_CURVE = bytes.fromhex("046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296") + bytes(32)
BAD_DEVICES: dict[str, tuple[Any, str, str]] = {
    "wrong length": (
        {"kem": "x25519", "public_key": b64encode(bytes(31)).decode()},
        "invalid_device_key",
        "#/public_key",
    ),
    "wrong curve": (
        {"kem": "x25519", "public_key": new_pair(Kem.P256).asked["public_key"]},
        "invalid_device_key",
        "#/public_key",
    ),
    "off the curve": (
        {"kem": "p256", "public_key": b64encode(BASE_OFF_CURVE).decode()},
        "invalid_device_key",
        "#/public_key",
    ),
    "low order": ({"kem": "x25519", "public_key": b64encode(bytes(32)).decode()}, "invalid_device_key", "#/public_key"),
    "not reduced": (
        {"kem": "xwing", "public_key": b64encode(b"\xff" * PUBLIC_KEY_BYTES[Kem.XWING]).decode()},
        "invalid_device_key",
        "#/public_key",
    ),
    "unknown kem": ({"kem": "p384", "public_key": "AAAA"}, "invalid_device_key", "#/kem"),
    "no kem": ({"public_key": "AAAA"}, "invalid_device_key", "#/kem"),
    "kem no text": ({"kem": 1, "public_key": "AAAA"}, "invalid_device_key", "#/kem"),
    "no key": ({"kem": "x25519"}, "invalid_parameter", "#/public_key"),
    "not base64": ({"kem": "x25519", "public_key": "%%%"}, "invalid_parameter", "#/public_key"),
    "key no text": ({"kem": "x25519", "public_key": [1]}, "invalid_parameter", "#/public_key"),
    "more": ({**new_pair(Kem.X25519).asked, "name": "x"}, "invalid_parameter", "#/name"),
}


@pytest.mark.parametrize("name", BAD_DEVICES)
async def test_a_bad_device_is_refused(api: Api, settings: Settings, name: str) -> None:
    """422 with a pointer to what is wrong; nothing is registered."""
    body, code, pointer = BAD_DEVICES[name]
    answer = await posted(api, body)
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert await count(settings, "devices") == 0


@pytest.mark.parametrize(
    ("content", "media_type", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"[]", "application/json", 400, "invalid_json"),
        (b'{"kem": "x25519", "kem": "p256"}', "application/json", 400, "invalid_json"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b" " * 9_000, "application/json", 413, "upload_too_large"),
    ],
)
async def test_a_body_that_is_no_device_is_refused(
    api: Api, content: bytes, media_type: str, status: int, code: str
) -> None:
    """JSON, one object, small."""
    answer = await api.http.post("/v1/me/devices", content=content, headers={**api.auth, "Content-Type": media_type})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_user_has_so_many_devices(api: Api, settings: Settings) -> None:
    """The limit holds although all come at once."""
    pairs = [new_pair(Kem.X25519) for _ in range(MOST_DEVICES + 3)]
    answers = await asyncio.gather(*(posted(api, pair.asked) for pair in pairs))
    assert sorted(answer.status_code for answer in answers) == [201] * MOST_DEVICES + [409] * 3
    assert {a.json()["code"] for a in answers if a.status_code == 409} == {"too_many_devices"}
    assert await count(settings, "devices") == MOST_DEVICES


@pytest.mark.parametrize("kem", list(Kem))
async def test_a_device_opens_what_it_downloads(api: Api, kem: Kem) -> None:
    """What is served is ciphertext of its own media type, whole or in ranges; the references open it."""
    phone = await Phone.new(api, kem)
    job = await made(api, BODY)
    [output] = job["outputs"]
    assert output["is_sealed"] is True
    assert (output["media_type"], output["bytes"]) == ("image/jpeg", len(BODY))
    assert "expires_at" not in job
    answer = await api.get(output["url"])
    assert answer.headers["content-type"] == "application/vnd.lethe.sealed"
    assert len(answer.content) == output["sealed_bytes"] == ciphertext_bytes(len(BODY))
    assert BODY[:32] not in answer.content
    part = await api.get(output["url"], Range="bytes=100-30000", If_Range=answer.headers["etag"])
    assert (part.status_code, part.content) == (206, answer.content[100:30_001])
    head = await api.http.head(output["url"], headers=api.auth)
    assert (head.headers["content-length"], head.headers["etag"]) == (str(len(answer.content)), answer.headers["etag"])

    key = await phone.key(job["id"])
    context = OPENER.output_context(job["id"], 0)
    assert OPENER.open_sealed(key, answer.content, context) == BODY
    small = await api.get(output["thumbnail_url"])
    assert small.headers["content-type"] == "application/vnd.lethe.sealed"
    assert OPENER.open_sealed(key, small.content, OPENER.thumbnail_context(job["id"], 0)) == SMALL
    keys = (await api.get(output["keys_url"])).json()["items"]
    wrapped = b64decode(keys[0]["wrapped_key"])
    assert opened_by_typescript(phone.pair, wrapped, phone.info(job["id"], 0), answer.content, context) == BODY


async def test_a_gallery_brings_what_opens_it(api: Api) -> None:
    """For the device that is named; another one sees what it cannot open yet."""
    phone = await Phone.new(api)
    job = await made(api, BODY, b"two", has_thumbnail=False)
    late = await Phone.new(api, Kem.P256)
    items = (await api.get(f"/v1/outputs?device={phone.id}")).json()["items"]
    assert [item["n"] for item in items] == [1, 0]
    assert all("thumbnail_url" not in item and "expires_at" not in item for item in items)
    key = OPENER.open_key(
        "x25519", phone.pair.private_key, b64decode(items[0]["wrapped_key"]), phone.info(job["id"], 1)
    )
    assert (
        OPENER.open_sealed(key, (await api.get(items[0]["url"])).content, OPENER.output_context(job["id"], 1)) == b"two"
    )
    theirs = (await api.get(f"/v1/outputs?device={late.id}")).json()["items"]
    assert [item["is_sealed"] for item in theirs] == [True, True]
    assert all("wrapped_key" not in item for item in theirs)
    missing = (await api.get(f"/v1/me/devices/{late.id}/missing")).json()
    assert missing == {"items": [{"job_id": job["id"], "n": 1}, {"job_id": job["id"], "n": 0}]}


@pytest.mark.parametrize(
    ("device", "status", "code"),
    [
        ("null", 422, "invalid_parameter"),
        ("", 422, "invalid_parameter"),
        ("00000000000040008000000000000000", 422, "invalid_parameter"),
        ("x" * 37, 422, "invalid_parameter"),
        ("00000000-0000-4000-8000-000000000000", 404, "device_not_found"),
    ],
)
async def test_a_gallery_is_for_a_device_that_is_there(api: Api, device: str, status: int, code: str) -> None:
    """A phone whose device was deleted elsewhere learns it; what is no id is refused."""
    answer = await api.get(f"/v1/outputs?device={device}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_another_device_is_added_by_one_that_can_open(api: Api) -> None:
    """Everything that was there is handed on, page by page; what comes later is sealed to both."""
    phone = await Phone.new(api)
    old = [await made(api, BODY, b"two") for _ in range(2)]
    tablet = await Phone.new(api, Kem.XWING)
    with pytest.raises(KeyError):
        await tablet.key(old[0]["id"])
    assert await phone.hand_on(tablet) == 4
    assert await phone.hand_on(tablet) == 0
    fresh = await made(api, b"fresh")
    for job in [*old, fresh]:
        assert await tablet.key(job["id"]) == await phone.key(job["id"])
    assert (await api.delete(f"/v1/me/devices/{phone.id}")).status_code == 204
    answer = await api.get(old[0]["outputs"][1]["url"])
    key = await tablet.key(old[0]["id"], 1)
    assert OPENER.open_sealed(key, answer.content, OPENER.output_context(old[0]["id"], 1)) == b"two"


async def test_two_devices_add_each_other_at_once(api: Api, settings: Settings) -> None:
    """Each hands on what the other lacks, at the same time: in the end both open everything, and nothing is lost."""
    one, two = await asyncio.gather(Phone.new(api), Phone.new(api, Kem.P256))
    jobs = [await made(api, b"of both") for _ in range(6)]
    for job, lacking in zip(jobs, [one, two] * 3, strict=True):
        forgotten = "DELETE FROM output_keys WHERE device_id = $1 AND job_id = $2"
        await run_sql(settings, forgotten, UUID(lacking.id), (await api.row(job)).id)
    assert await asyncio.gather(one.hand_on(two), two.hand_on(one)) == [3, 3]
    for job in jobs:
        assert await one.key(job["id"]) == await two.key(job["id"])
    assert await asyncio.gather(one.hand_on(two), two.hand_on(one)) == [0, 0]


async def test_what_no_device_can_open_is_shown(api: Api) -> None:
    """Its only device was deleted: it stays missing for whoever comes, until it is deleted."""
    one = await Phone.new(api)
    job = await made(api, b"lost")
    await api.delete(f"/v1/me/devices/{one.id}")
    two = await Phone.new(api)
    assert await two.hand_on(two) == 0
    missing = await api.get(f"/v1/me/devices/{two.id}/missing")
    assert missing.json() == {"items": [{"job_id": job["id"], "n": 0}]}
    assert (await api.get(f"/v1/jobs/{job['id']}/outputs/0/keys")).json() == {"items": []}
    await api.delete("/v1/outputs")
    assert (await api.get(f"/v1/me/devices/{two.id}/missing")).json() == {"items": []}


async def test_the_same_key_handed_on_twice_at_once(api: Api) -> None:
    """Two devices that both can open wrap for a third at the same time: one row, which opens."""
    one, two = await Phone.new(api), await Phone.new(api, Kem.P256)
    job = await made(api, BODY)
    three = await Phone.new(api)
    assert sum(await asyncio.gather(one.hand_on(three), two.hand_on(three))) >= 1
    assert await three.key(job["id"]) == await one.key(job["id"])


async def test_what_opens_it_stays(api: Api) -> None:
    """A second key for the same device, a wrong one for example, is answered and changes nothing."""
    phone = await Phone.new(api)
    job = await made(api, BODY)
    key = await phone.key(job["id"])
    answer = await put_key(api, job["id"], 0, phone.id, os.urandom(WRAPPED_KEY_BYTES[Kem.X25519]))
    assert answer.status_code == 204
    assert await phone.key(job["id"]) == key


async def test_a_key_that_is_handed_on_is_checked(api: Api) -> None:
    """Its length, whose device it is for, that the output is there, and sealed."""
    phone = await Phone.new(api)
    job = await made(api, BODY)
    good = bytes(WRAPPED_KEY_BYTES[Kem.X25519])
    stranger = Api(api.http, api.services, url=api.url, operator_url=api.operator_url, token="")
    stranger.token = (await api.http.post("/v1/users")).json()["token"]
    theirs = await Phone.new(stranger)
    answers = [
        await put_key(api, job["id"], 0, phone.id, good[:-1]),
        await put_key(api, job["id"], 0, theirs.id, good),
        await put_key(api, job["id"], 0, str(uuid4()), good),
        await put_key(api, job["id"], 7, phone.id, good),
        await put_key(stranger, job["id"], 0, theirs.id, good),
    ]
    assert [(a.status_code, a.json()["code"]) for a in answers] == [
        (422, "invalid_device_key"),
        (404, "device_not_found"),
        (404, "device_not_found"),
        (404, "output_not_found"),
        (404, "job_not_found"),
    ]
    assert answers[0].json()["errors"][0]["pointer"] == "#/wrapped_key"
    await api.delete(job["outputs"][0]["url"])
    gone = [await put_key(api, job["id"], 0, phone.id, good), await api.get(job["outputs"][0]["keys_url"])]
    assert [(a.status_code, a.json()["code"]) for a in gone] == [(410, "output_gone")] * 2


@pytest.mark.parametrize("path", ["/v1/me/devices/{id}/missing", "/v1/me/devices/{id}"])
async def test_another_users_device_is_not_there(api: Api, path: str) -> None:
    """Neither to be looked at nor to be deleted."""
    phone = await Phone.new(api)
    token = (await api.http.post("/v1/users")).json()["token"]
    method = "GET" if path.endswith("missing") else "DELETE"
    answer = await api.http.request(method, path.format(id=phone.id), headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["code"]) == (404, "device_not_found")
    assert len((await api.get("/v1/me/devices")).json()["items"]) == 1


async def test_a_sealed_gallery_is_deleted(api: Api, settings: Settings) -> None:
    """Outputs and thumbnails are destroyed, and what opened them is deleted; the device stays."""
    await Phone.new(api)
    job = await made(api, BODY, b"two")
    assert len(blobs(settings)) == 4
    assert (await api.delete(f"/v1/jobs/{job['id']}/outputs/1")).json()["output"] == "destroyed"
    assert len(blobs(settings)) == 2
    assert (await api.get(f"/v1/jobs/{job['id']}/outputs/1/thumbnail")).json()["code"] == "output_gone"
    assert (await api.delete("/v1/outputs")).json() == {"destroyed": 1, "pending": 0}
    assert blobs(settings) == []
    assert await count(settings, "output_keys") == 0
    assert await count(settings, "devices") == 1


async def test_info_and_contexts_are_said_as_documented(api: Api) -> None:
    """The ids in them are those that the API shows, in lower case."""
    phone = await Phone.new(api)
    job = await made(api, b"x")
    lower, n = job["id"], 0
    assert lower == lower.lower()
    row = await api.row(job)
    device = (await api.services.stores.devices.of_user(str(row.user_id)))[0]
    assert key_info(row.public_id, n, device.id, device.kem) == phone.info(lower, n)
    assert output_context(row.public_id, n) == OPENER.output_context(lower, n)
    assert thumbnail_context(row.public_id, n) == OPENER.thumbnail_context(lower, n)


async def test_no_thumbnail_is_said(api: Api) -> None:
    """A video for example has none."""
    await Phone.new(api)
    job = await made(api, b"x", has_thumbnail=False)
    assert "thumbnail_url" not in job["outputs"][0]
    answer = await api.get(f"{job['outputs'][0]['url']}/thumbnail")
    assert (answer.status_code, answer.json()["code"]) == (404, "output_not_found")

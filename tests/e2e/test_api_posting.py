"""POST of a job, from outside: JSON without pictures, a form with several, repeated under its key."""

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest

from broker.jobs import Outcome
from broker.services import Services
from broker.settings import Settings
from tests.api_client import Api
from tests.checks import plant
from tests.e2e.test_api_refusals import is_problem
from tests.forms import (
    BOUNDARY,
    CONTENT_TYPE,
    PROMPT,
    SECRET_NAME,
    form_of,
    job_part,
    open_files,
    open_studio,
    picture_part,
    studio_settings,
)
from tests.lifecycle import blobs, count, eventually
from tests.stack import upload_bytes

JSON: dict[str, Any] = {"operation": "generate", "parameters": {"prompt": PROMPT}}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return studio_settings(settings, tmp_path)


@pytest.fixture(autouse=True)
async def studio(services: Services) -> None:
    plant(PROMPT)
    plant(SECRET_NAME)
    await open_studio(services)


async def post_json(api: Api, job: object = JSON, key: str = "key-1", **headers: str) -> httpx.Response:
    return await api.http.post("/v1/jobs", json=job, headers={**api.auth, "Idempotency-Key": key, **headers})


async def post_form(
    api: Api, *parts: bytes, key: str = "key-1", content_type: str = CONTENT_TYPE, body: Any = None
) -> httpx.Response:
    headers = {**api.auth, "Idempotency-Key": key, "Content-Type": content_type}
    return await api.http.post("/v1/jobs", content=body or form_of(*parts), headers=headers)


async def test_words_alone_are_accepted(api: Api) -> None:
    """202 with the job's address, as for a PUT; what was typed stands in no row, the deadline is the client's."""
    answer = await post_json(api, {**JSON, "start_within_s": 5, "finish_within_s": 60.5})
    job = answer.json()
    assert (answer.status_code, job["status"]) == (202, "queued")
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["etag"] == f'"v{job["version"]}"'
    assert answer.headers["retry-after"].isdigit()
    assert "idempotent-replayed" not in answer.headers
    row = await api.row(job)
    assert (row.parameters, row.upload_bytes) == ({"count": 1, "size": "square"}, 0)
    assert 50 < row.finish_within_s <= 60.5
    shorter = await post_json(api, {**JSON, "finish_within_s": 60.5}, "key-2", **{"Lethe-Finish-Within": "30"})
    assert 20 < (await api.row(shorter.json())).finish_within_s <= 30
    assert (await api.get(answer.headers["location"])).json()["id"] == job["id"]


async def test_a_form_is_accepted(api: Api) -> None:
    """Several pictures and words: one job, every picture listed in order, and at its end all are gone."""
    pictures = [upload_bytes(300_000), upload_bytes(70)]
    answer = await post_form(api, job_part(), *map(picture_part, pictures))
    assert answer.status_code == 202, answer.text
    row = await api.row(answer.json())
    uploads = await api.services.stores.custody.uploads(row.id)
    assert [(upload.n, upload.what) for upload in uploads] == [(-1, "parameters"), (0, "upload"), (1, "upload")]
    assert [upload.size_bytes for upload in uploads[1:]] == [300_000, 70]
    assert (await api.ended(answer.json(), Outcome.SUCCEEDED, outputs=(b"result",))).open_copies == 0
    receipt = (await api.get(f"/v1/jobs/{answer.json()['id']}/receipt")).text
    assert receipt.count('"what":"parameters"') == 2
    assert receipt.count('"what":"upload"') == 6  # two blobs, two keys, the broker, the worker


async def test_forms_of_real_clients_are_accepted(api: Api) -> None:
    """What an HTTP library makes of a job and files is a form of ours."""
    files = [
        ("job", ("", json.dumps({**JSON, "operation": "edit"}).encode(), "application/json")),
        *(("picture", (SECRET_NAME, upload_bytes(100_000), "image/heic")) for _ in range(3)),
    ]
    answer = await api.http.post("/v1/jobs", files=files, headers={**api.auth, "Idempotency-Key": "k"})
    assert answer.status_code == 202, answer.text
    assert len(await api.services.stores.custody.uploads((await api.row(answer.json())).id)) == 4


@pytest.mark.parametrize("send", ["json", "form"])
async def test_the_same_key_is_the_same_job(api: Api, settings: Settings, send: str) -> None:
    """The same again is replayed and says so: 202 while the job lives, 200 once it is final; other content is 422."""
    picture = upload_bytes()

    async def again(key: str, prompt: str = PROMPT) -> httpx.Response:
        if send == "json":
            return await post_json(api, {**JSON, "parameters": {"prompt": prompt}}, key)
        return await post_form(api, job_part(parameters={"prompt": prompt}), picture_part(picture), key=key)

    first = await again('"a \\"key\\""')
    replayed = await again('"a \\"key\\""')
    assert (replayed.status_code, replayed.json()["id"]) == (202, first.json()["id"])
    assert replayed.headers["idempotent-replayed"] == "true"
    is_problem(await again('"a \\"key\\""', plant("another wish")), 422, "idempotency_mismatch")
    await api.ended(first.json(), Outcome.FAILED, code="invalid_image")
    final = await again('"a \\"key\\""')
    assert (final.status_code, final.json()["status"]) == (200, "failed")
    assert (await again("another")).json()["id"] != first.json()["id"]
    assert await count(settings, "jobs") == 2


async def test_a_key_is_its_users_own(api: Api) -> None:
    """Quotes make no difference, the user does; the id is a UUID that tells nothing, and the key is not stored."""
    key = plant("my-very-own-key")
    bare, quoted = await post_json(api, key=key), await post_json(api, key=f'"{key}"')
    assert (bare.json()["id"], quoted.headers["idempotent-replayed"]) == (quoted.json()["id"], "true")
    assert UUID(bare.json()["id"]).version == 8
    other = (await api.http.post("/v1/users")).json()["token"]
    foreign = await api.http.post(
        "/v1/jobs", json=JSON, headers={"Authorization": f"Bearer {other}", "Idempotency-Key": key}
    )
    assert foreign.json()["id"] != bare.json()["id"]


async def test_a_key_is_needed(api: Api) -> None:
    """Without one: 400; one that is empty, too long or unprintable: 400 with a pointer."""
    is_problem(await api.http.post("/v1/jobs", json=JSON, headers=api.auth), 400, "idempotency_key_missing")
    for key in ("", '""', "a" * 256, '"' + "a" * 256 + '"', '"a"b', 'a "b"', "a\tb", '"a";p=1'):
        answer = await post_json(api, key=key)
        is_problem(answer, 400, "invalid_header")
        assert answer.json()["errors"][0]["pointer"] == "#/headers/Idempotency-Key"
    for key in ("a" * 255, '"' + "a" * 255 + '"', "{json}"):
        assert (await post_json(api, key=key)).status_code == 202


@pytest.mark.parametrize(
    ("job", "status", "code", "pointer"),
    [
        ({}, 422, "invalid_parameter", "#/operation"),
        ({"operation": 7}, 422, "invalid_parameter", "#/operation"),
        ({"operation": "paint"}, 422, "unknown_operation", "#/operation"),
        ({**JSON, "extra": 1}, 422, "invalid_parameter", "#/extra"),
        ({**JSON, PROMPT: 1}, 422, "invalid_parameter", "#"),
        ({**JSON, "parameters": [PROMPT]}, 422, "invalid_parameter", "#/parameters"),
        ({**JSON, "parameters": None}, 422, "invalid_parameter", "#/parameters"),
        ({**JSON, "parameters": {"prompt": 7}}, 422, "invalid_parameter", "#/parameters/prompt"),
        ({**JSON, "start_within_s": "5"}, 422, "invalid_parameter", "#/start_within_s"),
        ({**JSON, "finish_within_s": True}, 422, "invalid_parameter", "#/finish_within_s"),
        ({**JSON, "finish_within_s": -1}, 422, "invalid_parameter", "#/finish_within_s"),
        ({**JSON, "finish_within_s": 1e6}, 422, "invalid_parameter", "#/finish_within_s"),
        ({**JSON, "finish_within_s": 0}, 422, "deadline_too_short", "#/finish_within_s"),
        ({"operation": "upscale"}, 422, "wrong_picture_count", None),
        ([PROMPT], 400, "invalid_json", None),
        (PROMPT, 400, "invalid_json", None),
        ({**JSON, "parameters": {"prompt": "x" * 17_000}}, 413, "upload_too_large", None),
    ],
)
async def test_a_wrong_job_is_refused_the_same_way_in_both_forms(
    api: Api, settings: Settings, job: object, status: int, code: str, pointer: str | None
) -> None:
    """A stable code, a pointer where there is something to point at, no word of what was sent, and nothing kept."""
    answers = [await post_json(api, job)]
    if code != "wrong_picture_count":
        text = json.dumps(job).replace('"generate"', '"edit"').encode()
        part = job_part().partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + text
        answers.append(await post_form(api, part, picture_part(upload_bytes())))
    for answer in answers:
        is_problem(answer, status, code)
        assert [fault["pointer"] for fault in answer.json().get("errors", [])] == ([pointer] if pointer else [])
        assert PROMPT not in answer.text
    assert await count(settings, "jobs") == 0


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([], 422, "unexpected_part"),
        ([picture_part(b"\xff\xd8\xff"), job_part()], 422, "unexpected_part"),
        ([job_part(), job_part()], 422, "unexpected_part"),
        ([job_part(), picture_part(upload_bytes(), name="photo")], 422, "unexpected_part"),
        ([job_part()], 422, "wrong_picture_count"),
        ([job_part("generate")], 422, "wrong_picture_count"),
        ([job_part("animate"), *[picture_part(upload_bytes())] * 2], 503, "operation_unavailable"),
        ([job_part(), *[picture_part(upload_bytes())] * 17], 422, "wrong_picture_count"),
        ([job_part(), picture_part(upload_bytes()), picture_part(bytes(900))], 415, "unsupported_image"),
        ([job_part(), picture_part(upload_bytes(26_000_000))], 413, "upload_too_large"),
        (
            [job_part(), picture_part(b"x").replace(b"image/jpeg", b"multipart/mixed; boundary=c")],
            422,
            "unexpected_part",
        ),
        ([job_part(), b"no header at all"], 400, "invalid_form"),
    ],
)
async def test_a_wrong_form_is_refused(
    api: Api, settings: Settings, parts: list[bytes], status: int, code: str
) -> None:
    """Order, names, number, kind and size of the parts: each has its code, and nothing is kept of those before."""
    is_problem(await post_form(api, *parts), status, code)
    await eventually(lambda: _is_empty(settings))


async def _is_empty(settings: Settings) -> bool:
    return not blobs(settings) and await count(settings, "jobs") + await count(settings, "custody") == 0


async def test_another_kind_of_body_is_refused(api: Api) -> None:
    """415 says what is taken; a form without a boundary, and one that does not begin with it, are no forms."""
    answer = await post_form(api, content_type="image/jpeg", body=upload_bytes())
    is_problem(answer, 415, "unsupported_media_type")
    assert answer.headers["accept"] == "application/json, multipart/form-data"
    is_problem(await post_form(api, content_type="multipart/form-data", body=b"x"), 400, "invalid_form")
    is_problem(await post_form(api, body=b"garbage" * 20), 400, "invalid_form")
    is_problem(
        await post_form(api, body=form_of(job_part(), picture_part(upload_bytes()))[:-30]), 400, "upload_incomplete"
    )


async def test_a_form_over_the_limit_is_refused_before_it_is_read(api: Api) -> None:
    """Four times the largest picture, declared or counted."""
    is_problem(await post_form(api, body=b"x" * 100_000_001), 413, "upload_too_large")
    operations = (await api.http.get("/v1/operations")).json()["items"]
    (edit,) = [shown for shown in operations if shown["name"] == "edit"]
    assert edit["limits"]["max_form_bytes"] == 4 * edit["limits"]["max_upload_bytes"] == 100_000_000
    assert (edit["pictures"], edit["outputs"]) == ({"min": 1, "max": 16}, {"kind": "image", "max": 4})


async def test_no_file_is_made_of_a_form(
    api: Api, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While megabytes come in, the only files that this process has open are the blob store's ciphertext."""
    empty = tmp_path / "temporary"
    empty.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(empty))
    folder, body, half, is_looked = urlsplit(settings.blobs_url).path, _large_form(), asyncio.Event(), asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]
            if at == 6_000_000:
                half.set()
                await is_looked.wait()

    before = open_files()
    sending = asyncio.create_task(post_form(api, body=chunks()))
    await half.wait()
    await eventually(lambda: _writes_to(folder))
    opened = open_files() - before
    assert all(path.startswith(folder) for path in opened), opened
    assert not any(path.read_bytes().count(b"\xff\xd8\xff\xe0") for path in Path(folder).rglob("*") if path.is_file())
    assert list(empty.iterdir()) == []
    is_looked.set()
    assert (await sending).status_code == 202
    assert list(empty.iterdir()) == []


def _large_form() -> bytes:
    return form_of(job_part(), picture_part(upload_bytes(4_000_000)), picture_part(upload_bytes(4_000_000)))


async def _writes_to(folder: str) -> bool:
    return any(path.startswith(folder) for path in open_files())


async def test_a_later_post_takes_over(api: Api, settings: Settings) -> None:
    """An upload still streaming under the key is cut, and answered with a conflict."""

    async def stalled() -> AsyncGenerator[bytes, None]:
        yield form_of(job_part(), picture_part(upload_bytes(100_000)))[: -len(BOUNDARY) - 8]
        await is_answered.wait()  # the client library reads no answer while it sends

    is_answered = asyncio.Event()
    earlier = asyncio.create_task(post_form(api, body=stalled()))
    await eventually(lambda: count(settings, "jobs"))
    later = await post_form(api, job_part(), picture_part(upload_bytes()))
    assert (later.status_code, "idempotent-replayed" in later.headers) == (202, False)
    is_answered.set()
    is_problem(await earlier, 409, "upload_superseded")
    await eventually(lambda: _has_two(settings))


async def _has_two(settings: Settings) -> bool:
    return len(blobs(settings)) == 2  # the later one's words and picture

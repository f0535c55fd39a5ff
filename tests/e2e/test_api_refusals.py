"""Bad input and foreign hands: every answer is a problem with a stable code."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from broker.log import capture_log, configure_log
from tests.api_client import Api, noise
from tests.stack import JPEG_HEAD, upload_bytes


def is_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert problem["type"] == f"urn:lethe:problem:{code}"
    assert problem["instance"] == f"urn:lethe:request:{answer.headers['x-request-id']}"
    assert problem["title"]
    assert problem["detail"]
    assert None not in problem.values()
    assert answer.headers["cache-control"] == "private, no-store"


async def test_a_token_is_needed(api: Api) -> None:
    """No token and a wrong token are 401 with the scheme; a refused upload is not a job."""
    job_id = uuid4()
    for headers in ({}, {"Authorization": "Bearer lethe_wrong"}, {"Authorization": "Basic abc"}):
        for answer in (
            await api.http.get("/v1/jobs", headers=headers),
            await api.http.put(f"/v1/jobs/{job_id}?operation=noop", content=upload_bytes(), headers=headers),
        ):
            is_problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (await api.get(f"/v1/jobs/{job_id}")).status_code == 404


async def test_another_users_job_is_not_there(api: Api) -> None:
    """core-1: existence is not told: every route answers 404."""
    done = await api.finished(b"result")
    other = (await api.http.post("/v1/users")).json()["token"]
    headers = {"Authorization": f"Bearer {other}"}
    path = f"/v1/jobs/{done['id']}"
    for tail in ("", "/events", "/receipt", "/outputs/0"):
        is_problem(await api.http.get(path + tail, headers=headers), 404, "job_not_found")
    is_problem(await api.http.delete(path, headers=headers), 404, "job_not_found")
    assert (await api.get(done["outputs"][0]["url"])).status_code == 200


@pytest.mark.parametrize(
    ("query", "code", "pointer"),
    [
        ("", "invalid_parameter", "#/parameters/operation"),
        ("operation=paint", "unknown_operation", "#/operation"),
        ("operation=upscale&scale=9", "invalid_parameter", "#/parameters/scale"),
        ("operation=upscale&size=2", "invalid_parameter", "#/parameters/size"),
        ("operation=edit&prompt=zebra7", "parameter_in_url", "#/parameters/prompt"),
    ],
)
async def test_a_parameter_is_pointed_at(api: Api, query: str, code: str, pointer: str) -> None:
    """What is wrong with a parameter is 422 with a pointer to it, and never quotes it."""
    answer = await api.put(upload_bytes(), query=query)
    is_problem(answer, 422, code)
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]
    assert "zebra7" not in answer.text


async def test_headers_are_checked(api: Api) -> None:
    """A header that cannot be read is 400 and named; free text travels in a header that can."""
    late = await api.put(upload_bytes(), Lethe_Start_Within="soon")
    is_problem(late, 400, "invalid_header")
    assert late.json()["errors"][0]["pointer"] == "#/headers/Lethe-Start-Within"
    is_problem(await api.put(upload_bytes(), Lethe_Finish_Within="-1"), 400, "invalid_header")
    is_problem(await api.put(upload_bytes(), Lethe_Parameters="{}"), 400, "invalid_header")
    strange = base64.urlsafe_b64encode(json.dumps({"colour": 1}).encode()).decode()
    is_problem(await api.put(upload_bytes(), Lethe_Parameters=strange), 422, "invalid_parameter")
    is_problem(await api.put(upload_bytes(), Lethe_Finish_Within="0"), 422, "deadline_too_short")


async def test_the_framework_speaks_the_same_way(api: Api) -> None:
    """Unknown addresses, methods and values are problems too."""
    is_problem(await api.get("/v1/nothing"), 404, "not_found")
    is_problem(await api.get("/v1/jobs/not-a-uuid"), 404, "not_found")
    wrong = await api.http.post("/v1/jobs/" + str(uuid4()))
    is_problem(wrong, 405, "method_not_allowed")
    assert set(wrong.headers["allow"].replace(" ", "").split(",")) >= {"GET", "PUT", "DELETE"}
    bad = await api.get("/v1/jobs?limit=many")
    is_problem(bad, 422, "invalid_parameter")
    assert bad.json()["errors"][0]["pointer"] == "#/parameters/limit"
    is_problem(await api.get("/v1/jobs?limit=0"), 422, "invalid_parameter")


async def test_what_is_no_picture_is_refused(api: Api) -> None:
    """No image is 415 with what would be taken; a body over the limit is 413, declared or not; nothing stays."""
    job_id = uuid4()
    answer = await api.put(noise(1000), job_id)
    is_problem(answer, 415, "unsupported_image")
    assert "image/heic" in answer.headers["accept"]
    is_problem(await api.put(b"", job_id), 415, "unsupported_image")

    async def endless() -> AsyncGenerator[bytes, None]:
        yield JPEG_HEAD
        for _ in range(26):
            yield bytes(1_000_000)

    is_problem(await api.put(JPEG_HEAD + bytes(26_000_000), job_id), 413, "upload_too_large")
    is_problem(await api.put(endless(), job_id), 413, "upload_too_large")
    async with asyncio.timeout(5):
        while (await api.get(f"/v1/jobs/{job_id}")).status_code != 404:  # noqa: ASYNC110 - the broker destroys it
            await asyncio.sleep(0.02)
    assert (await api.put(upload_bytes(), job_id)).status_code == 202


async def raw(api: Api, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send bytes as they are, and return all that comes until the connection ends."""
    where = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(pause_s)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


def head(api: Api, *lines: str, query: str = "operation=noop") -> bytes:
    request = [f"PUT /v1/jobs/{uuid4()}?{query} HTTP/1.1", "Host: x", f"Authorization: Bearer {api.token}", *lines]
    return ("\r\n".join(request) + "\r\n\r\n").encode()


async def test_two_lengths_are_refused(api: Api) -> None:
    """Content-Length together with Transfer-Encoding is a way to smuggle requests past a proxy: 400."""
    answer = await raw(api, head(api, "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in answer
    assert b'"code":"bad_request"' in answer


async def test_a_refused_upload_is_read_on(api: Api) -> None:
    """A small body is taken in whole before the refusal, and the connection stays good."""
    body = upload_bytes(200_000)
    request = head(api, f"Content-Length: {len(body)}", query="operation=paint")
    then = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await raw(api, request, body[:100_000], body[100_000:], then, pause_s=0.05)
    assert answer.startswith(b"HTTP/1.1 422")
    assert b"HTTP/1.1 200" in answer


async def test_a_refused_slow_upload_is_closed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not end in time is answered and the connection closed."""
    monkeypatch.setattr("broker.api.edge.DISCARD_WITHIN_S", 0.2)
    answer = await raw(api, head(api, "Content-Length: 5000", query="operation=paint"), b"x" * 10)
    assert answer.startswith(b"HTTP/1.1 422")
    assert b"connection: close" in answer.lower()


async def test_a_client_that_waits_to_be_asked_is_refused_unread(api: Api) -> None:
    """With Expect: 100-continue a refusal comes instead of the invitation to send."""
    request = head(api, "Content-Length: 5000", "Expect: 100-continue", query="operation=paint")
    answer = await raw(api, request)
    assert answer.startswith(b"HTTP/1.1 422")


async def test_a_client_that_goes_away_leaves_nothing(api: Api) -> None:
    """Half a body and a closed connection is an unfinished upload: no error of ours, no row, the id is free."""
    configure_log(is_console=False)
    with capture_log() as lines:
        where = urlsplit(api.url)
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        job_id = uuid4()
        start = f"PUT /v1/jobs/{job_id}?operation=noop HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
        writer.write(start.encode() + b"Content-Length: 9000\r\n\r\n" + upload_bytes(4_000))
        path = f"/v1/jobs/{job_id}"
        await until(api, path, 200)
        writer.close()
        await until(api, path, 404)
    assert not [line for line in lines if '"error"' in line or "request_failed" in line]
    assert (await api.put(upload_bytes(), job_id)).status_code == 202


async def until(api: Api, path: str, status: int) -> None:
    async with asyncio.timeout(5):
        while (await api.get(path)).status_code != status:  # noqa: ASYNC110 - the broker notices by itself
            await asyncio.sleep(0.01)


async def test_requests_are_logged_by_their_template(api: Api) -> None:
    """One line per request: template, method, status, duration; no id, address, token or query."""
    configure_log(is_console=False)
    shown = await api.queued()
    with capture_log() as lines:
        await api.get(f"/v1/jobs/{shown['id']}?canary=7f3a-0c55-9e1b")
    [line] = [json.loads(line) for line in lines if "request_served" in line]
    assert line.pop("duration_ms") > 0
    assert line.pop("request_id")
    assert line.pop("timestamp")
    assert line == {
        "event": "request_served",
        "level": "info",
        "method": "GET",
        "route": "/v1/jobs/{job_id}",
        "status": 200,
    }
    assert "7f3a-0c55" not in "".join(lines)
    assert shown["id"] not in "".join(lines)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/jobs", "GET, OPTIONS, POST"),
        ("/v1/jobs/11111111-1111-4111-8111-111111111111", "DELETE, GET, OPTIONS, PUT"),
        ("/v1/users", "OPTIONS, POST"),
    ],
)
async def test_options_names_every_method(api: Api, path: str, methods: str) -> None:
    """Whoever asks what an address knows, or uses a method that it does not know, is told all of it."""
    answer = await api.http.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (204, methods)
    refused = await api.http.request("PATCH", path)
    assert (refused.status_code, set(refused.headers["allow"].split(", "))) == (405, set(methods.split(", ")))

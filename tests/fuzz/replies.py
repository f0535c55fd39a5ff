"""Every adapter, hearing from its provider whatever there is to be heard: it fails in its own words, or not at all."""

import asyncio
import contextlib
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import cycle

import httpx

from providers.base import Handle, Provider, Snapshot
from providers.failures import ProviderFailure
from tests.contract.cases import CASES
from tests.contract.orders import task
from tests.emulators.case import Case
from tests.reporters import Heard

NOWHERE = "http://127.0.0.1:9"
STATUSES = (200, 201, 202, 204, 302, 400, 401, 404, 409, 422, 429, 500, 503, 504)
KINDS = (b"application/json", b"text/event-stream", b"image/png", b"application/octet-stream", b"")
PARTING = b"\n\n"
WITHIN_S = 0.2


Answers = Iterator[Callable[[httpx.Request], httpx.Response]]


def _answers(data: bytes) -> Answers:
    """Each answer is a status, a kind and a length of headers, one byte each, and a body."""
    for part in data.split(PARTING):
        status, kind, *_ = [*part[:2], 0, 0]
        yield lambda request, part=part, status=status, kind=kind: httpx.Response(
            STATUSES[status % len(STATUSES)],
            headers=[
                (b"content-type", KINDS[kind % len(KINDS)]),
                (b"retry-after", part[2:20].translate(None, b"\r\n")),
                (b"inference-header-content-length", b"%d" % (len(part) // 2)),
            ],
            stream=_Body(part[2:]),
            request=request,
        )


class _Body(httpx.AsyncByteStream):
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._data


def hear(data: bytes) -> None:
    """Let each adapter order, ask, stop and delete, with these bytes for answers."""
    asyncio.run(_hear(data))


async def _hear(data: bytes) -> None:
    usual = httpx.AsyncHTTPTransport.handle_async_request
    try:
        for case in CASES:
            answers = cycle(_answers(data))

            async def answered(
                self: httpx.AsyncHTTPTransport, request: httpx.Request, answers: Answers = answers
            ) -> httpx.Response:
                return next(answers)(request)

            httpx.AsyncHTTPTransport.handle_async_request = answered
            await _all_calls(case, case.make(NOWHERE))
    finally:
        httpx.AsyncHTTPTransport.handle_async_request = usual


async def _all_calls(case: Case, provider: Provider) -> None:
    order, heard = task(case), Heard()
    try:
        await _call(lambda: provider.submit(order, heard))
        handle = heard.handle if heard.handles else Handle(id="p1", operation=case.operation)
        for verb in (provider.poll, provider.cancel, provider.purge):
            await _call(lambda verb=verb: verb(handle))
        await _call(provider.healthy)
    finally:
        await provider.aclose()
        for picture in order.pictures:
            os.close(picture.fd)


async def _call(verb: Callable[[], Awaitable[object]]) -> None:
    # Some wait before they ask again: what was heard by then is what counts.
    with contextlib.suppress(ProviderFailure, TimeoutError):
        async with asyncio.timeout(WITHIN_S):
            said = await verb()
            if isinstance(said, Snapshot):
                assert said.cost_usd is None or 0 <= said.cost_usd < math.inf
                assert said.model_s >= 0


def _told(*answers: bytes) -> bytes:
    """One answer after the other, and then again from the first."""
    return PARTING.join(answers)


def _said(status: int, body: str) -> bytes:
    return bytes([STATUSES.index(status), 0]) + body.encode()


_QUEUED = _said(
    200, '{"request_id": "r1", "status_url": "http://127.0.0.1:9/s", "response_url": "", "cancel_url": "y"}'
)
_DONE = _said(200, '{"status": "COMPLETED"}')

SEEDS = (
    _said(200, '{"id": "p1", "status": "succeeded", "output": ["https://x.example/1.png"], "urls": {"get": "/x"}}'),
    _said(422, '{"detail": [{"loc": ["body", "image"], "type": "content_policy_violation", "msg": "no"}]}'),
    _told(_QUEUED, _DONE, _said(200, '{"images": {"url": 7}}'), _said(202, '{"status": "CANCELLATION_REQUESTED"}')),
    _told(_QUEUED, _DONE, _said(200, '{"images": [{"url": "https://x.example/1.png"}], "has_nsfw_concepts": [false]}')),
    _told(_QUEUED, _DONE, _said(200, '{"images": [{"url": "http://["}], "has_nsfw_concepts": 1}')),
    _told(_QUEUED, _DONE, _said(200, '{"images": "http://["}')),
    *(_said(status, '{"x": ' + "[" * 3_000) for status in (200, 201, 400, 401, 404, 409, 422, 429, 500)),
    _said(200, '{"prompt_id": "p1", "status": "completed", "outputs": {"9": {"images": [{"filename": "a.png"}]}}}'),
    _said(400, '{"node_errors": {"3": {"errors": [{"type": "x", "extra_info": {"input_name": "seed"}}]}}}'),
    _said(200, '{"id": "", "outputs": [{"name": "o", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}]}'),
    _told(
        _QUEUED, _said(200, '{"status": "COMPLETED", "metrics": {"inference_time": -5}}'), _said(200, '{"images": []}')
    ),
    _said(200, '{"id": "p1", "status": "succeeded", "output": "AAAA", "metrics": {"predict_time": -5}}'),
    _said(200, '{"data": [{"b64_json": "AAAA"}], "usage": {"total_tokens": 5}}'),
    _said(200, '{"data": [{"b64_json": "AAAA"}], "usage": {"total_tokens": -5}}'),
    _said(200, '{"data": [{"b64_json": "AAAA"}], "usage": {"total_tokens": ' + "9" * 400 + "}}"),
    _said(400, '{"error": {"code": "moderation_blocked", "moderation_details": {"moderation_stage": "input"}}}'),
)

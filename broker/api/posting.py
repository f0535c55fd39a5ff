"""POST of a job: JSON for an operation without pictures, a form for one or several; repeated safely by its key."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import cast

from litestar import Response, post
from litestar.exceptions import HTTPException

from broker.api.bodies import object_in
from broker.api.deps import Caller, HttpRequest, Known, Seen, Wired
from broker.api.submitting import TARGETS, answer_taken, refuse_two_lengths, seconds_in, stream_of, targets_in
from broker.api.views import JobView
from broker.errors import DeadlineTooShort, InvalidHeader, JobConflict, UploadIncomplete, UploadTooLarge
from broker.forgetting import forget_frames
from broker.form import MAX_JOB_BYTES, MEDIA_TYPE, Form, boundary_of
from broker.form_errors import IdempotencyKeyMissing, IdempotencyMismatch
from broker.incoming import Body, Delivery
from broker.intake import FORM_FACTOR
from broker.jobs import Job
from broker.operations import find_operation, parse_parameters, parted
from broker.parameters import invalid
from broker.sameness import job_id_of
from broker.secret_memory import wipe
from broker.services import Services
from broker.submission import Submission

KEY_HEADER = "Idempotency-Key"
MAX_WITHIN_S = 1_000_000
_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]*")
_MAX_KEY_CHARS = 255
_FIELDS = frozenset({"operation", "parameters", "start_within_s", "finish_within_s", *TARGETS})
_ABSENT = object()
_HEADERS = {"start_within_s": "Lethe-Start-Within", "finish_within_s": "Lethe-Finish-Within"}
"""What a PUT says in headers may stand in the JSON of a POST as well."""


@post("/v1/jobs")
async def post_job(request: HttpRequest, *, services: Wired, caller: Known, pace: Seen) -> Response[JobView]:
    """Take in one job; the same key with the same content gets the same answer."""
    refuse_two_lengths(request)
    key = idempotency_key(request.headers.get(KEY_HEADER))
    try:
        job, is_new = await _take_in(request, services, caller, key)
    except BaseException as exc:
        forget_frames(exc)  # before anybody can say that the upload was overwritten
        if isinstance(exc, JobConflict):
            raise IdempotencyMismatch from exc
        if isinstance(exc, DeadlineTooShort):
            exc.pointer = _pointer(request, exc.pointer)
        raise
    answer = await answer_taken(services, job, pace, is_new=is_new)
    if not is_new:
        answer.headers["Idempotent-Replayed"] = "true"
    return answer


def idempotency_key(value: str | None) -> str:
    """Read the header, in which the key may stand in quotes, as the draft wants it, or without, as most send it."""
    if value is None:
        raise IdempotencyKeyMissing(pointer=f"#/headers/{KEY_HEADER}")
    quoted = _QUOTED.fullmatch(value)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value if _BARE.fullmatch(value) else ""
    if not 0 < len(key) <= _MAX_KEY_CHARS:
        detail = f"{KEY_HEADER} is not 1 to {_MAX_KEY_CHARS} printable characters"
        raise InvalidHeader(detail, pointer=f"#/headers/{KEY_HEADER}")
    return key


def _pointer(request: HttpRequest, pointer: str) -> str:
    """Point to the JSON where a PUT would have said it in a header, and this request did not."""
    members = {f"#/headers/{header}": f"#/{name}" for name, header in _HEADERS.items() if header not in request.headers}
    return members.get(pointer, pointer)


async def _take_in(request: HttpRequest, services: Services, caller: Caller, key: str) -> tuple[Job, bool]:
    content_type = request.headers.get("content-type", "")
    match content_type.partition(";")[0].strip().lower():
        case "application/json":
            return await _take_json(request, services, caller, key)
        case media_type if media_type == MEDIA_TYPE:
            return await _take_form(request, services, caller, key, boundary=boundary_of(content_type))
        case _:
            raise HTTPException(status_code=415, headers={"Accept": f"application/json, {MEDIA_TYPE}"})


async def _take_json(request: HttpRequest, services: Services, caller: Caller, key: str) -> tuple[Job, bool]:
    body = Body(stream_of(request), max_bytes=MAX_JOB_BYTES, idle_s=services.settings.upload_idle_s)
    data = bytearray()
    async with _in_time(services), aclosing(body.chunks()) as chunks:
        async for chunk in chunks:
            data += chunk
    submission = _submission(data, request, caller, key)
    find_operation(submission.operation).require_pictures(0)
    return await services.intake.deliver(submission, Delivery(body, None))


async def _take_form(
    request: HttpRequest, services: Services, caller: Caller, key: str, *, boundary: str
) -> tuple[Job, bool]:
    body = services.intake.bounded(stream_of(request), factor=FORM_FACTOR)
    if request.content_length is not None and request.content_length > body.max_bytes:
        raise UploadTooLarge(f"the body is larger than {body.max_bytes} bytes")
    async with aclosing(Form(body.chunks(), boundary)) as form:
        async with _in_time(services):
            data = await form.job()
        submission = _submission(data, request, caller, key)
        operation = find_operation(submission.operation)
        operation.require_pictures(max(1, operation.pictures.min))
        return await services.intake.deliver(submission, Delivery(body, form.pictures()))


@asynccontextmanager
async def _in_time(services: Services) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(services.settings.upload_within_s):
            yield
    except TimeoutError as exc:
        raise UploadIncomplete from exc


def _submission(data: bytearray, request: HttpRequest, caller: Caller, key: str) -> Submission:
    try:
        order = object_in(data, names=_FIELDS)
    finally:
        wipe(data)
    operation, given = order.get("operation"), order.get("parameters", {})
    if not isinstance(operation, str):
        raise invalid("operation", "is missing, or no text", at="#")
    if not isinstance(given, dict):
        raise invalid("parameters", "is no object", at="#")
    parameters, texts = parted(operation, parse_parameters(operation, cast("dict[str, object]", given)))
    return Submission(
        user_id=caller.user_id,
        token=caller.token,
        public_id=job_id_of(caller.token, key),
        operation=operation,
        parameters=parameters,
        texts=texts,
        content_length=None,
        start_within_s=_shortest(request, order, "start_within_s"),
        finish_within_s=_shortest(request, order, "finish_within_s"),
        targets=targets_in(request, order),
    )


def _shortest(request: HttpRequest, order: dict[str, object], name: str) -> float | None:
    given = (seconds_in(request, _HEADERS[name]), _seconds(order, name))
    return min((seconds for seconds in given if seconds is not None), default=None)


def _seconds(order: dict[str, object], name: str) -> float | None:
    value = order.get(name, _ABSENT)
    if value is _ABSENT:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_WITHIN_S:
        raise invalid(name, "is not a number of seconds", at="#")
    return float(value)

"""What requests that send a job have in common: the body as a stream, their limits, and the answer."""

import re
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from litestar import Response
from litestar.exceptions import HTTPException, InternalServerException

from broker.api.deps import HttpRequest
from broker.api.views import JobView, Pace, retry_after_s, show_job
from broker.api.waiting import etag
from broker.errors import InvalidHeader, UploadIncomplete
from broker.jobs import Job
from broker.notifications import Target, read_push, read_webhook
from broker.parameters import invalid
from broker.services import Services

TARGETS: Final = {
    "notify_webhook": ("Lethe-Notify-Webhook", read_webhook),
    "notify_push": ("Lethe-Notify-Push", read_push),
}
"""Where somebody is to be told: the member of a POST's JSON, the header that says the same, and how it is read."""

_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?")


def refuse_two_lengths(request: HttpRequest) -> None:
    """Refuse two ways to say where the body ends: smuggling behind a proxy."""
    if "content-length" in request.headers and "transfer-encoding" in request.headers:
        raise HTTPException(status_code=400)


def seconds_in(request: HttpRequest, name: str) -> float | None:
    """Read a header that shortens a deadline."""
    value = request.headers.get(name)
    if value is None:
        return None
    if not _SECONDS.fullmatch(value):
        raise InvalidHeader(f"{name} is not a number of seconds", pointer=f"#/headers/{name}")
    return float(value)


def targets_in(request: HttpRequest, order: Mapping[str, object] | None = None) -> tuple[Target, ...]:
    """Read where somebody is to be told that the job has ended: in JSON, else in headers; raise what is wrong."""
    found = [_target(request, order or {}, name) for name in TARGETS]
    return tuple(target for target in found if target is not None)


def _target(request: HttpRequest, order: Mapping[str, object], name: str) -> Target | None:
    header, read = TARGETS[name]
    if name not in order:
        text = request.headers.get(header)
        return None if text is None else read(text, pointer=f"#/headers/{header}")
    text = order[name]
    if not isinstance(text, str):
        raise invalid(name, "is no text", at="#")
    return read(text, pointer=f"#/{name}")


async def stream_of(request: HttpRequest) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives."""
    try:
        async for chunk in request.stream():
            yield chunk
    except InternalServerException as exc:
        # The framework's words for a client that went away: an unfinished upload, no fault of ours.
        raise UploadIncomplete from exc


async def answer_taken(services: Services, job: Job, pace: Pace, *, is_new: bool) -> Response[JobView]:
    """Answer with a job that was taken in now, or by an earlier request that was the same."""
    view = await show_job(services, job, pace, with_queue=not is_new)
    headers = {"Location": f"/v1/jobs/{job.public_id}", **job_headers(job, view)}
    return Response(view, status_code=202 if is_new or not job.is_final else 200, headers=headers)


def job_headers(job: Job, view: JobView) -> dict[str, str]:
    """Return the headers that go with a job: its version, and when it pays to ask again."""
    hint = {} if job.is_final else {"Retry-After": str(retry_after_s(view))}
    return {"ETag": etag(job), **hint}

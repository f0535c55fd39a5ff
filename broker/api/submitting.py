"""What requests that send a job have in common: the body as a stream, their limits, and the answer."""

import re
from collections.abc import AsyncGenerator

from litestar import Response
from litestar.exceptions import HTTPException, InternalServerException

from broker.api.deps import HttpRequest
from broker.api.views import JobView, Pace, retry_after_s, show_job
from broker.api.waiting import etag
from broker.errors import InvalidHeader, UploadIncomplete
from broker.jobs import Job
from broker.services import Services

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

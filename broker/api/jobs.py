"""Jobs over HTTP: put, get (with waiting), list, delete, receipt."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated
from urllib.parse import parse_qsl
from uuid import UUID

from litestar import MediaType, Response, delete, get, put
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException, InternalServerException
from litestar.params import FromPath, QueryParameter

from broker.api.deps import Caller, Closing, HttpRequest, Known, Wired
from broker.api.views import JobPageView, JobView, Pace, VerdictView, retry_after_s, show_job, show_verdict
from broker.api.waiting import etag, known_versions, preferred_wait_s, wait_for
from broker.errors import InvalidCursor, InvalidHeader, InvalidParameter, JobNotFound, ReceiptNotReady, UploadIncomplete
from broker.forgetting import forget_frames
from broker.jobs import Job
from broker.operations import parse_request
from broker.services import Services
from broker.submission import Submission

MAX_PAGE = 100
MAX_PAIRS = 64
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?")

Seen = NamedDependency[Pace]


@put("/v1/jobs/{job_id:uuid}")
async def put_job(
    job_id: FromPath[UUID], request: HttpRequest, *, services: Wired, caller: Known, pace: Seen
) -> Response[JobView]:
    """Take in one upload, streamed; the same id with the same content gets the same answer."""
    submission = _submission(job_id, request, caller)
    try:
        job, is_new = await services.intake.submit(submission, _body(request))
    except BaseException as exc:
        forget_frames(exc)  # before anybody can say that the upload was overwritten
        raise
    view = await show_job(services, job, pace, with_queue=not is_new)
    headers = {"Location": f"/v1/jobs/{job_id}", **_headers(job, view)}
    return Response(view, status_code=202 if is_new or not job.is_final else 200, headers=headers)


@get("/v1/jobs/{job_id:uuid}")
async def get_job(
    job_id: FromPath[UUID], request: HttpRequest, *, services: Wired, caller: Known, closing: Closing, pace: Seen
) -> Response[JobView] | Response[None]:
    """Show a job; `Prefer: wait` waits for a version that the client has not, or for the end where it names none."""
    job = await find_job(services, caller, job_id)
    known = known_versions(request.headers.get("if-none-match", ""))
    wait_s = preferred_wait_s(request.headers.get("prefer", ""))
    applied = {} if wait_s is None else {"Preference-Applied": f"wait={wait_s}"}
    if wait_s and not job.is_final and (not known or job.version in known):
        job = await wait_for(
            services,
            job,
            lambda now: now.is_final or (bool(known) and now.version not in known),
            wait_s=wait_s,
            closing=closing,
        )
    if job.version in known:
        return Response(None, status_code=304, headers={"ETag": etag(job), "Vary": "Prefer", **applied})
    view = await show_job(services, job, pace)
    return Response(view, headers={**_headers(job, view), "Vary": "Prefer", **applied})


@get("/v1/jobs")
async def list_jobs(
    *,
    services: Wired,
    caller: Known,
    pace: Seen,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str, QueryParameter(max_length=64)] = "",
) -> JobPageView:
    """List a user's jobs, newest first."""
    before = await _position(services, caller, cursor) if cursor else None
    jobs = await services.stores.jobs.page(caller.user_id, before=before, limit=limit + 1)
    items = [await show_job(services, job, pace) for job in jobs[:limit]]
    return JobPageView(items=items, next=_cursor(jobs[limit - 1])) if len(jobs) > limit else JobPageView(items=items)


@delete("/v1/jobs/{job_id:uuid}", status_code=200)
async def delete_job(job_id: FromPath[UUID], *, services: Wired, caller: Known) -> Response[VerdictView]:
    """Cancel a job where it is live, destroy its outputs, and say what was done."""
    verdict = await services.cancellation.delete(await find_job(services, caller, job_id))
    is_done = verdict.job.is_final
    headers = {} if is_done else {"Retry-After": "1"}
    return Response(show_verdict(verdict), status_code=200 if is_done else 202, headers=headers)


@get("/v1/jobs/{job_id:uuid}/receipt")
async def get_receipt(job_id: FromPath[UUID], *, services: Wired, caller: Known) -> Response[str]:
    """Return the newest receipt of a final job, a signed note."""
    job = await find_job(services, caller, job_id)
    note = await services.stores.receipts.latest(job.id)
    if note is None:
        raise ReceiptNotReady(retry_after_s=1)
    return Response(note, media_type=MediaType.TEXT)


async def find_job(services: Services, caller: Caller, job_id: UUID) -> Job:
    """Return a job of this user; raise JobNotFound, for another user's job too."""
    job = await services.stores.jobs.find(caller.user_id, job_id)
    if job is None:
        raise JobNotFound
    return job


def _submission(job_id: UUID, request: HttpRequest, caller: Caller) -> Submission:
    headers = request.headers
    if "content-length" in headers and "transfer-encoding" in headers:
        raise HTTPException(status_code=400)  # two ways to say where the body ends: smuggling behind a proxy
    pairs = _query(request)
    operation = next((value for name, value in pairs if name == "operation"), None)
    if operation is None:
        raise InvalidParameter("operation is missing", pointer="#/parameters/operation")
    return Submission(
        user_id=caller.user_id,
        token=caller.token,
        public_id=job_id,
        operation=operation,
        parameters=parse_request(operation, pairs, headers.get("lethe-parameters", "")),
        content_length=request.content_length,
        start_within_s=_seconds(request, "Lethe-Start-Within"),
        finish_within_s=_seconds(request, "Lethe-Finish-Within"),
    )


def _query(request: HttpRequest) -> list[tuple[str, str]]:
    # The framework's own pairs come in random order.
    try:
        return parse_qsl(
            request.scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PAIRS
        )
    except ValueError as exc:
        raise InvalidParameter("too many parameters", pointer="#/parameters") from exc


def _seconds(request: HttpRequest, name: str) -> float | None:
    value = request.headers.get(name)
    if value is None:
        return None
    if not _SECONDS.fullmatch(value):
        raise InvalidHeader(f"{name} is not a number of seconds", pointer=f"#/headers/{name}")
    return float(value)


async def _body(request: HttpRequest) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in request.stream():
            yield chunk
    except InternalServerException as exc:
        # The framework's words for a client that went away: an unfinished upload, no fault of ours.
        raise UploadIncomplete from exc


def _headers(job: Job, view: JobView) -> dict[str, str]:
    hint = {} if job.is_final else {"Retry-After": str(retry_after_s(view))}
    return {"ETag": etag(job), **hint}


def _cursor(job: Job) -> str:
    return urlsafe_b64encode(job.public_id.bytes).rstrip(b"=").decode()


async def _position(services: Services, caller: Caller, cursor: str) -> tuple[datetime, UUID]:
    try:
        public_id = UUID(bytes=urlsafe_b64decode(cursor + "=="))
    except ValueError as exc:
        raise InvalidCursor from exc
    job = await services.stores.jobs.find(caller.user_id, public_id)
    if job is None:
        raise InvalidCursor
    return job.created_at, job.id

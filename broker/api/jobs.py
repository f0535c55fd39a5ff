"""Jobs over HTTP: put, get (with waiting), list, delete, receipt."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Annotated
from urllib.parse import parse_qsl
from uuid import UUID

from litestar import MediaType, Response, delete, get, put
from litestar.params import FromPath, QueryParameter

from broker.api.deps import Caller, Closing, HttpRequest, Known, Seen, Wired
from broker.api.submitting import answer_taken, job_headers, refuse_two_lengths, seconds_in, stream_of, targets_in
from broker.api.views import JobPageView, JobView, VerdictView, show_job, show_verdict
from broker.api.waiting import etag, known_versions, preferred_wait_s, wait_for
from broker.errors import InvalidCursor, InvalidParameter, JobNotFound, ReceiptNotReady
from broker.forgetting import forget_frames
from broker.jobs import Job
from broker.operations import find_operation, parse_request, parted
from broker.services import Services
from broker.submission import Submission

MAX_PAGE = 100
MAX_PAIRS = 64


@put("/v1/jobs/{job_id:uuid}")
async def put_job(
    job_id: FromPath[UUID], request: HttpRequest, *, services: Wired, caller: Known, pace: Seen
) -> Response[JobView]:
    """Take in one upload, streamed; the same id with the same content gets the same answer."""
    refuse_two_lengths(request)
    submission = _submission(job_id, request, caller)
    try:
        job, is_new = await services.intake.submit(submission, stream_of(request))
    except BaseException as exc:
        forget_frames(exc)  # before anybody can say that the upload was overwritten
        raise
    return await answer_taken(services, job, pace, is_new=is_new)


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
    return Response(view, headers={**job_headers(job, view), "Vary": "Prefer", **applied})


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
    pairs = _query(request)
    operation = next((value for name, value in pairs if name == "operation"), None)
    if operation is None:
        raise InvalidParameter("operation is missing", pointer="#/parameters/operation")
    find_operation(operation).require_pictures(1)
    parameters, texts = parted(operation, parse_request(operation, pairs, headers.get("lethe-parameters", "")))
    return Submission(
        user_id=caller.user_id,
        token=caller.token,
        public_id=job_id,
        operation=operation,
        parameters=parameters,
        texts=texts,
        content_length=request.content_length,
        start_within_s=seconds_in(request, "Lethe-Start-Within"),
        finish_within_s=seconds_in(request, "Lethe-Finish-Within"),
        targets=targets_in(request),
    )


def _query(request: HttpRequest) -> list[tuple[str, str]]:
    # The framework's own pairs come in random order.
    try:
        return parse_qsl(
            request.scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PAIRS
        )
    except ValueError as exc:
        raise InvalidParameter("too many parameters", pointer="#/parameters") from exc


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

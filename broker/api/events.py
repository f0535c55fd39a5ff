"""A job's changes as server-sent events; the stream ends with the job, with the client, or with this server."""

import asyncio
from collections.abc import AsyncGenerator
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.params import FromPath
from litestar.response import Stream

from broker.api.deps import Closing, HttpRequest, Known, Seen, Wired
from broker.api.jobs import find_job
from broker.api.views import JobView, Pace, show_job
from broker.api.waiting import reread
from broker.changes import heard
from broker.errors import BrokerError
from broker.jobs import Job
from broker.services import Services

HEARTBEAT_S = 15.0
RETRY_MS = 3000


@get("/v1/jobs/{job_id:uuid}/events")
async def job_events(
    job_id: FromPath[UUID], request: HttpRequest, *, services: Wired, caller: Known, closing: Closing, pace: Seen
) -> Stream | Response[None]:
    """Stream a job as it changes; 204 tells a client that it has seen the end."""
    job = await find_job(services, caller, job_id)
    seen = _version(request.headers.get("last-event-id", ""))
    if job.is_final and job.version == seen:
        return Response(None, status_code=204)
    return Stream(
        _changes(services, job, seen=seen, closing=closing, pace=pace),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


async def _changes(
    services: Services, job: Job, *, seen: int, closing: asyncio.Event, pace: Pace
) -> AsyncGenerator[bytes, None]:
    yield b"retry: %d\n\n" % RETRY_MS
    try:
        with services.changes.watch(job.id) as changed:
            while not closing.is_set():
                job = await reread(services, job)
                if job.version != seen:
                    seen = job.version
                    yield _event(await show_job(services, job, pace))
                if job.is_final:
                    yield b"event: end\ndata: {}\n\n"
                    return
                if not await heard(changed, within_s=HEARTBEAT_S):
                    yield b": hb\n\n"
    except BrokerError:
        return  # a store is away, or the unfinished upload is no more: the client comes back and is told


def _event(view: JobView) -> bytes:
    return b"id: %d\nevent: job\ndata: %s\n\n" % (view.version, msgspec.json.encode(view))


def _version(last_event_id: str) -> int:
    return int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 10 else 0

"""Outputs over HTTP: what is asked for, whole or in ranges."""

import hashlib
from uuid import UUID

import msgspec
from litestar import HttpMethod, route
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.params import FromPath

from broker.api.deps import HttpRequest, Known, Wired
from broker.api.jobs import find_job
from broker.api.ranges import RangeNotSatisfiable, Span, asked_range
from broker.api.serving import Answer, Disclosures, OutputResponse, SealedResponse, servable
from broker.crypto.chunked import ciphertext_bytes
from broker.jobs import Job, Output
from broker.services import Services

SEALED_TYPE = "application/vnd.lethe.sealed"


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """Ciphertext of an output, or of its thumbnail."""

    name: str
    plaintext_bytes: int
    is_whole: bool


@route("/v1/jobs/{job_id:uuid}/outputs/{n:int}", http_method=[HttpMethod.GET, HttpMethod.HEAD])
async def get_output(
    job_id: FromPath[UUID],
    n: FromPath[int],
    request: HttpRequest,
    *,
    services: Wired,
    caller: Known,
    disclosures: NamedDependency[Disclosures],
) -> OutputResponse:
    """Serve an output of a final job; ranges, so that a download can go on where it broke off."""
    job = await find_job(services, caller, job_id)
    output = await servable(services, job, n)
    blob = Blob(name=output.blob, plaintext_bytes=output.size_bytes, is_whole=True)
    if output.is_sealed:
        return sealed_response(services, disclosures, request, job=job, output=output, blob=blob)
    answer = _answer(request, job, output, blob, size_bytes=output.size_bytes, media_type=output.media_type)
    return OutputResponse(services, disclosures, answer)


def sealed_response(
    services: Services,
    disclosures: Disclosures,
    request: HttpRequest,
    *,
    job: Job,
    output: Output,
    blob: Blob,
) -> SealedResponse:
    """Answer with the ciphertext of a sealed output, or of its thumbnail, or a range of it."""
    size_bytes = ciphertext_bytes(blob.plaintext_bytes)
    answer = _answer(request, job, output, blob, size_bytes=size_bytes, media_type=SEALED_TYPE)
    return SealedResponse(services, disclosures, answer, blob=blob.name)


def _answer(request: HttpRequest, job: Job, output: Output, blob: Blob, *, size_bytes: int, media_type: str) -> Answer:
    # Named by its random blob: a digest of the content would confirm a known picture.
    tag = f'"{hashlib.sha256(b"lethe/etag/v1" + blob.name.encode()).hexdigest()[:32]}"'
    span = Span(start=0, stop=size_bytes, size_bytes=size_bytes)
    if request.method == HttpMethod.GET and request.headers.get("if-range", tag) == tag:
        span = _asked(request.headers.get("range", ""), size_bytes) or span
    headers = {
        "Content-Type": media_type,
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": "attachment",
    }
    is_head = request.method == HttpMethod.HEAD
    return Answer(job=job, output=output, span=span, headers=headers, is_head=is_head, is_delivery=blob.is_whole)


def _asked(header: str, size_bytes: int) -> Span | None:
    try:
        return asked_range(header, size_bytes)
    except RangeNotSatisfiable as exc:
        raise HTTPException(status_code=416, headers={"Content-Range": f"bytes */{size_bytes}"}) from exc

"""A user's outputs over HTTP: listed newest first, deleted one by one or all."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, delete, get
from litestar.params import FromPath, QueryParameter
from msgspec import UNSET, UnsetType

from broker.api.cursors import cursor_of, read_cursor
from broker.api.deps import Caller, HttpRequest, Known, Wired
from broker.api.devices import require_device
from broker.api.jobs import MAX_PAGE, find_job
from broker.api.views import Moment, moment, output_url, whole_second
from broker.crypto.chunked import ciphertext_bytes
from broker.errors import JobSettling, OutputNotFound
from broker.gallery import Emptied
from broker.parameters import invalid
from broker.services import Services
from broker.store.outputs import Shown

Bytes = bytes  # the name is a field's below


class GalleryItemView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    An output that can be fetched; without `expires_at` it stays until it is deleted.

    `wrapped_key` is what opens a sealed one on the device that was named, where that device can open it.
    """

    job_id: UUID
    n: int
    operation: str
    created_at: Moment
    expires_at: Moment | UnsetType = UNSET
    url: str
    media_type: str
    bytes: int
    width: int
    height: int
    is_sealed: bool
    sealed_bytes: int | UnsetType = UNSET
    wrapped_key: Bytes | UnsetType = UNSET
    thumbnail_url: str | UnsetType = UNSET


class GalleryPageView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Outputs of one user, newest first; without `next` there are no more."""

    items: list[GalleryItemView]
    next: str | UnsetType = UNSET


class OutputVerdictView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an output: `destroyed`, or `pending`: served no more, and destroyed as soon as a store answers."""

    job_id: UUID
    n: int
    output: str


class EmptiedView(msgspec.Struct, frozen=True, kw_only=True):
    """How many outputs are destroyed; those that are pending are served no more, and destroyed by themselves."""

    destroyed: int
    pending: int


@get("/v1/outputs")
async def list_outputs(
    request: HttpRequest,
    *,
    services: Wired,
    caller: Known,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str, QueryParameter(max_length=64)] = "",
) -> GalleryPageView:
    """List what a user can fetch, newest first; for a device with what opens each one on it."""
    before = read_cursor(cursor) if cursor else None
    # Read by hand: the framework takes `null` for nothing, and a phone that sends it means something.
    given = request.query_params.get("device")
    named = None if given is None else await _device(services, caller, given)
    found = await services.stores.outputs.gallery(caller.user_id, before=before, limit=limit + 1, device=named)
    items = [_item(shown) for shown in found[:limit]]
    more = cursor_of(found[limit - 1].position) if len(found) > limit else UNSET
    return GalleryPageView(items=items, next=more)


@delete("/v1/outputs", status_code=200)
async def delete_outputs(*, services: Wired, caller: Known) -> Response[EmptiedView]:
    """Destroy every output of a user; jobs that run go on."""
    return _answer(await services.gallery.destroy_all(caller.user_id))


@delete("/v1/jobs/{job_id:uuid}/outputs/{n:int}", status_code=200)
async def delete_output(
    job_id: FromPath[UUID], n: FromPath[int], *, services: Wired, caller: Known
) -> Response[OutputVerdictView]:
    """Destroy one output: the phone has saved it, or nobody wants it; idempotent."""
    job = await find_job(services, caller, job_id)
    if not job.is_final:
        raise JobSettling("the job is not final yet; DELETE of the job cancels it", retry_after_s=1)
    if n not in {output.n for output in await services.stores.custody.outputs(job.id)}:
        raise OutputNotFound
    is_done = await services.gallery.destroy(job.id, n)
    view = OutputVerdictView(job_id=job.public_id, n=n, output="destroyed" if is_done else "pending")
    return Response(view, status_code=200 if is_done else 202)


async def _device(services: Services, caller: Caller, given: str) -> UUID:
    try:
        device_id = UUID(given)
    except ValueError:
        device_id = None
    if str(device_id) != given.lower():
        raise invalid("device", "is not the id of a device")
    return (await require_device(services, caller, UUID(given))).id


def _answer(emptied: Emptied) -> Response[EmptiedView]:
    view = EmptiedView(destroyed=emptied.destroyed, pending=emptied.pending)
    return Response(view, status_code=202 if emptied.pending else 200)


def _item(shown: Shown) -> GalleryItemView:
    url = output_url(shown.job_id, shown.n)
    return GalleryItemView(
        job_id=shown.job_id,
        n=shown.n,
        operation=shown.operation,
        created_at=whole_second(shown.finalized_at),
        expires_at=moment(shown.until),
        url=url,
        media_type=shown.media_type,
        bytes=shown.size_bytes,
        width=shown.width,
        height=shown.height,
        is_sealed=shown.is_sealed,
        sealed_bytes=ciphertext_bytes(shown.size_bytes) if shown.is_sealed else UNSET,
        wrapped_key=UNSET if shown.wrapped is None else shown.wrapped,
        thumbnail_url=f"{url}/thumbnail" if shown.thumbnail_bytes else UNSET,
    )

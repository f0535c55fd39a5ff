"""The audit record over HTTP: what was done to the caller's data, newest first."""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.params import QueryParameter
from msgspec import UNSET, UnsetType

from broker.api.deps import Known, Wired
from broker.api.jobs import MAX_PAGE
from broker.api.views import Moment, whole_second
from broker.audit import Batch
from broker.errors import InvalidCursor
from broker.store.audit import ShownEvent

NO_STORE = {"Cache-Control": "no-store"}
_ID = struct.Struct(">q")


class EventView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was done. `event` is an open set; `job` is there while the job's record is."""

    at: Moment
    event: str
    job: UUID | UnsetType = UNSET
    detail: str | UnsetType = UNSET


class HeadView(msgspec.Struct, frozen=True, kw_only=True):
    """The newest batch of the whole record: whoever keeps this can show later that nothing before it was changed."""

    number: int
    hash: str


class AuditPageView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was done to a user's data, newest first; without `next` there is no more."""

    items: list[EventView]
    next: str | UnsetType = UNSET
    head: HeadView | UnsetType = UNSET


@get("/v1/me/audit")
async def list_audit(
    *,
    services: Wired,
    caller: Known,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str, QueryParameter(max_length=64)] = "",
) -> Response[AuditPageView]:
    """List what was done to the user's data."""
    before = read_place(cursor) if cursor else None
    found = await services.stores.audit.of_user(caller.user_id, before=before, limit=limit + 1)
    more = place_of(found[limit - 1].id) if len(found) > limit else UNSET
    head = _head(await services.stores.audit.head())
    return Response(
        AuditPageView(items=[_show(event) for event in found[:limit]], next=more, head=head), headers=NO_STORE
    )


def place_of(event_id: int) -> str:
    """Write a place in the record."""
    return urlsafe_b64encode(_ID.pack(event_id)).rstrip(b"=").decode()


def read_place(cursor: str) -> int:
    """Read a place in the record; raise InvalidCursor."""
    try:
        (event_id,) = _ID.unpack(urlsafe_b64decode(cursor + "=="))
    except (ValueError, struct.error) as exc:
        raise InvalidCursor from exc
    return int(event_id)


def _head(batch: Batch | None) -> HeadView | UnsetType:
    return UNSET if batch is None else HeadView(number=batch.number, hash=batch.hash)


def _show(event: ShownEvent) -> EventView:
    return EventView(
        at=whole_second(event.at),
        event=event.event,
        job=UNSET if event.job is None else event.job,
        detail=event.detail or UNSET,
    )

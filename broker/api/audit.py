"""The audit record over HTTP: what was done to the caller's data, newest first."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import get
from litestar.params import QueryParameter
from msgspec import UNSET, UnsetType

from broker.api.cursors import place_of, read_place
from broker.api.deps import Known, Wired
from broker.api.jobs import MAX_PAGE
from broker.api.views import Moment, whole_second
from broker.audit import Batch
from broker.store.audit import ShownEvent


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
) -> AuditPageView:
    """List what was done to the user's data."""
    before = read_place(cursor) if cursor else None
    found = await services.stores.audit.of_user(caller.user_id, before=before, limit=limit + 1)
    more = place_of(found[limit - 1].id) if len(found) > limit else UNSET
    head = _head(await services.stores.audit.head())
    return AuditPageView(items=[_show(event) for event in found[:limit]], next=more, head=head)


def _head(batch: Batch | None) -> HeadView | UnsetType:
    return UNSET if batch is None else HeadView(number=batch.number, hash=batch.hash)


def _show(event: ShownEvent) -> EventView:
    return EventView(
        at=whole_second(event.at),
        event=event.event,
        job=UNSET if event.job is None else event.job,
        detail=event.detail or UNSET,
    )

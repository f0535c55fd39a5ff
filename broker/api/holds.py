"""What operators do to records, on their own listener and with their keys: legal holds, and the removal of a child."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath
from msgspec import UNSET, UnsetType

from broker.api.bodies import read_json, struct_in
from broker.api.deps import HttpRequest, Operators, Wired, operator_of
from broker.api.rights import RequestView, show_request
from broker.api.views import Moment, moment, whole_second
from broker.store.holds import Hold

UserId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]


class NewHoldView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keep the records of a user; `reference` is the operator's own, of a court's file say, and names nobody."""

    user_id: UserId
    reference: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:/-]{1,128}\Z")]


class HoldView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A hold; `state` is proposed, in_force, lapsed (not confirmed in time) or ended."""

    id: UUID
    user_id: str
    reference: str
    state: str
    proposed_by: str
    proposed_at: Moment
    confirm_by: Moment
    confirmed_by: str | UnsetType = UNSET
    confirmed_at: Moment | UnsetType = UNSET
    ended_by: str | UnsetType = UNSET
    ended_at: Moment | UnsetType = UNSET


class HoldListView(msgspec.Struct, frozen=True, kw_only=True):
    """Every hold, newest first."""

    items: list[HoldView]


class ChildView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user who is known to be a child."""

    user_id: UserId


@post("/holds")
async def propose_hold(request: HttpRequest, services: Wired, operators: Operators) -> Response[HoldView]:
    """Propose a hold; it keeps nothing until another operator has confirmed it."""
    operator = operator_of(request, operators)
    form = "a hold has user_id, a reference of letters, digits and ._:/- and no more"
    wanted = struct_in(await read_json(request, services), NewHoldView, form=form)
    hold = await services.stores.holds.propose(wanted.user_id, wanted.reference, operator=operator)
    return Response(_show(hold), status_code=201)


@post("/holds/{hold_id:uuid}/confirm", status_code=200)
async def confirm_hold(
    hold_id: FromPath[UUID], request: HttpRequest, services: Wired, operators: Operators
) -> HoldView:
    """Put a hold in force, with another key than it was proposed with."""
    return _show(await services.stores.holds.confirm(hold_id, operator=operator_of(request, operators)))


@delete("/holds/{hold_id:uuid}", status_code=200)
async def end_hold(hold_id: FromPath[UUID], request: HttpRequest, services: Wired, operators: Operators) -> HoldView:
    """End a hold: what it kept goes at its time again, or at once where its user was erased meanwhile."""
    return _show(await services.stores.holds.end(hold_id, operator=operator_of(request, operators)))


@get("/holds")
async def list_holds(request: HttpRequest, services: Wired, operators: Operators) -> HoldListView:
    """List holds."""
    operator_of(request, operators)
    return HoldListView(items=[_show(hold) for hold in await services.stores.holds.all()])


@post("/children")
async def remove_child(request: HttpRequest, services: Wired, operators: Operators) -> Response[RequestView]:
    """Erase a user who is known to be a child; 202 while something of it is not gone."""
    operator = operator_of(request, operators)
    child = struct_in(await read_json(request, services), ChildView, form="a child is named by user_id, and no more")
    made = await services.erasure.remove_child(child.user_id, operator=operator)
    services.stores.users.forget_all()
    status_code = 200 if made.destroyed_at is not None else 202
    return Response(await show_request(services, made), status_code=status_code)


def _show(hold: Hold) -> HoldView:
    return HoldView(
        id=hold.id,
        user_id=hold.user_id,
        reference=hold.reference,
        state=hold.state,
        proposed_by=hold.proposed_by,
        proposed_at=whole_second(hold.proposed_at),
        confirm_by=whole_second(hold.confirm_by),
        confirmed_by=hold.confirmed_by or UNSET,
        confirmed_at=moment(hold.confirmed_at),
        ended_by=hold.ended_by or UNSET,
        ended_at=moment(hold.ended_at),
    )

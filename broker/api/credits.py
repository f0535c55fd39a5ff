"""Credits over HTTP: what a user has, and the grant by the app's own server."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, get, post
from msgspec import UNSET, UnsetType

from broker.api.bodies import read_json, struct_in
from broker.api.deps import HttpRequest, Known, Operators, Wired, operator_of
from broker.api.views import Moment, whole_second
from broker.services import Services
from broker.store.credits import Entry

NEWEST = 100
MOST = 1_000_000


class EntryView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of an account. `kind` is an open set: granted, held, captured, released, refunded."""

    kind: str
    credits: int
    at: Moment
    job: UUID | UnsetType = UNSET


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """What a user has, how much of it jobs under way hold, and the newest entries."""

    credits: int
    held: int
    items: list[EntryView]


class GrantView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """More credits for a user; the same reference again grants nothing more."""

    user_id: Annotated[str, msgspec.Meta(max_length=64)]
    credits: Annotated[int, msgspec.Meta(ge=1, le=MOST)]
    reference: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:-]+\Z")]


class BalanceView(msgspec.Struct, frozen=True, kw_only=True):
    """An account after a grant, and whether this request made it."""

    credits: int
    held: int
    is_new: bool


@get("/v1/me/credits")
async def get_credits(services: Wired, caller: Known) -> AccountView:
    """Show a user's account."""
    account = await services.stores.credits.account(caller.user_id)
    entries = await services.stores.credits.entries(caller.user_id, limit=NEWEST)
    return AccountView(credits=account.credits, held=account.held, items=[_show(entry) for entry in entries])


@post("/credits")
async def grant_credits(request: HttpRequest, services: Wired, operators: Operators) -> Response[BalanceView]:
    """Grant credits to a user: on the operator's listener, with an operator key."""
    operator_of(request, operators)
    grant = read_grant(await read_json(request, services))
    is_new = await services.stores.credits.grant(grant.user_id, grant.credits, reference=grant.reference)
    return await answer_balance(services, grant.user_id, is_new=is_new)


async def answer_balance(services: Services, user_id: str, *, is_new: bool) -> Response[BalanceView]:
    """Answer with an account: 201 where the request has added to it, 200 where that was done before."""
    account = await services.stores.credits.account(user_id)
    view = BalanceView(credits=account.credits, held=account.held, is_new=is_new)
    return Response(view, status_code=201 if is_new else 200)


def read_grant(data: bytearray) -> GrantView:
    """Read one grant; raise InvalidParameter where a member is missing, unknown or out of range."""
    form = f"a grant has user_id, credits (1 to {MOST}), a short reference, and no more"
    return struct_in(data, GrantView, form=form)


def _show(entry: Entry) -> EntryView:
    job = UNSET if entry.job is None else entry.job
    return EntryView(kind=entry.kind, credits=entry.credits, at=whole_second(entry.at), job=job)

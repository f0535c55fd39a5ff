"""A user's rights over HTTP: what is held, a copy of it, erasure, restriction, objection, and how requests stand."""

from datetime import date
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post, put
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream
from msgspec import UNSET, UnsetType

from broker.api.bodies import read_object
from broker.api.deps import HttpRequest, Known, Wired, credential_of, find_user
from broker.api.views import Moment, moment, whole_second
from broker.consents import Wish
from broker.custody import Evidence
from broker.errors import InvalidParameter, Unauthenticated
from broker.export import export
from broker.receipts import PROVIDER_WORDS
from broker.rights import ProviderCopies, Request, Right
from broker.rights_errors import Erasing, RequestNotFound
from broker.services import Services
from broker.store.breaches import Breach
from broker.store.held import HeldUser
from broker.store.holds import Hold

NO_STORE = {"Cache-Control": "no-store"}
AGAIN_S = "2"


class ProviderCopiesView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """So many copies at a provider, and the word for what is known of them: an open set, as in job objects."""

    provider: str
    word: str
    copies: int
    until: Moment | UnsetType = UNSET


class RequestView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    How a request stands; `status` in the words of OpenDSR. It should end by `expected_by`, and must by `answer_by`.

    `destroyed_at`: since when nothing of it is in our hands, whatever a provider still has. `is_held`: a legal hold
    keeps records until it ends; uploads, outputs and keys are gone as ever. `ground`: asked, or child.
    """

    id: UUID
    kind: str
    status: str
    received_at: Moment
    expected_by: Moment
    answer_by: Moment
    destroyed_at: Moment | UnsetType = UNSET
    completed_at: Moment | UnsetType = UNSET
    provider_copies: list[ProviderCopiesView] | UnsetType = UNSET
    is_held: bool | UnsetType = UNSET
    ground: str | UnsetType = UNSET


class RequestListView(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asked for, newest first."""

    items: list[RequestView]


class MyHoldView(msgspec.Struct, frozen=True, kw_only=True):
    """A legal hold that keeps records of the user; `reference` is what to ask the publisher about."""

    reference: str
    since: Moment


class MyBreachView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A breach that concerns the user, in the words of the publisher: show it."""

    id: UUID
    declared_at: Moment
    nature: str
    consequences: str
    measures: str
    contact: str


class MeView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything held about a user, counted: jobs by where they stand, and `held` by what it is."""

    id: str
    created_on: date
    last_seen_on: date
    is_restricted: bool
    is_erasing: bool
    jobs: dict[str, int]
    held: dict[str, int]
    credits: int
    credits_held: int
    holds: list[MyHoldView] | UnsetType = UNSET
    breaches: list[MyBreachView] | UnsetType = UNSET


class ErasedView(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure has done: the request, and the receipts (signed notes) of the jobs that went with this call."""

    request: RequestView
    receipts: list[str]
    receipts_left_out: int


class RestrictionView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether processing is restricted; `request` where this call changed it."""

    is_restricted: bool
    request: RequestView | UnsetType = UNSET


class NewRestrictionView(msgspec.Struct, frozen=True, kw_only=True):
    """Restrict processing, or lift it."""

    restricted: bool


class ObjectionView(msgspec.Struct, frozen=True, kw_only=True):
    """An objection, and the optional purposes to which consent was withdrawn by it."""

    request: RequestView
    withdrawn: list[str]


@get("/v1/me")
async def get_me(services: Wired, caller: Known) -> Response[MeView]:
    """Count everything that is held about the user."""
    user = await _user(services, caller.user_id)
    view = await _show_me(services, user)
    await services.stores.breaches.told(user.id, [breach.id for breach in view.breaches or ()])
    return Response(view, headers=NO_STORE)


@delete("/v1/me", status_code=200)
async def delete_me(request: HttpRequest, services: Wired) -> Response[ErasedView]:
    """Erase the user; asked again, also when the user is gone, the answer is the same request."""
    credential = credential_of(request)
    user = await find_user(services, credential)
    erased = await services.erasure.ask(credential.secret, user.user_id if user else None)
    services.stores.users.forget_all()
    is_done = erased.request.destroyed_at is not None
    view = ErasedView(
        request=await show_request(services, erased.request),
        receipts=erased.receipts,
        receipts_left_out=erased.receipts_left_out,
    )
    headers = NO_STORE if is_done or view.request.is_held else {**NO_STORE, "Retry-After": AGAIN_S}
    return Response(view, status_code=200 if is_done else 202, headers=headers)


@get("/v1/me/export")
async def get_export(
    services: Wired, caller: Known, right: Annotated[str, QueryParameter(max_length=16)] = Right.ACCESS.value
) -> Stream:
    """Send everything that is held about the user, made while it is sent and kept nowhere; the same for both rights."""
    if right not in (Right.ACCESS, Right.PORTABILITY):
        raise InvalidParameter("right is neither access nor portability", pointer="#/parameters/right")
    user = await _user(services, caller.user_id)
    if user.erasing_at is not None:
        raise Erasing
    request = await _record(services, caller.user_id, Right(right))
    headers = {**NO_STORE, "Content-Disposition": 'attachment; filename="lethe-export.json"'}
    return Stream(export(services.stores.held, user, request), media_type="application/json", headers=headers)


@put("/v1/me/restriction")
async def put_restriction(request: HttpRequest, services: Wired, caller: Known) -> Response[RestrictionView]:
    """Restrict processing: nothing new is taken in, nothing is lost; or lift it."""
    is_restricted = read_restriction(await read_object(request, services, names=frozenset({"restricted"})))
    await _require_not_erasing(services, caller.user_id)
    changed = await services.stores.requests.restrict(caller.user_id, is_restricted=is_restricted)
    made = await _record(services, caller.user_id, Right.RESTRICTION) if changed else None
    shown = UNSET if made is None else await show_request(services, made)
    return Response(RestrictionView(is_restricted=is_restricted, request=shown), status_code=200)


@post("/v1/me/objections", status_code=200)
async def post_objection(services: Wired, caller: Known) -> ObjectionView:
    """Object to whatever is optional: consent to it is withdrawn, and the objection recorded."""
    await _require_not_erasing(services, caller.user_id)
    optional = tuple(str(purpose) for purpose in services.policies.profile.consent.optional)
    shown = await services.noticeboard.shown()
    await services.stores.consents.record(caller.user_id, Wish(notice=shown.current.version, withdraw=optional))
    made = await _record(services, caller.user_id, Right.OBJECTION)  # whatever comes of this, consent is withdrawn
    return ObjectionView(request=await show_request(services, made), withdrawn=list(optional))


@get("/v1/me/requests")
async def list_requests(services: Wired, caller: Known) -> RequestListView:
    """List what the user asked for by right."""
    await _user(services, caller.user_id)
    requests = await services.stores.requests.of_user(caller.user_id)
    return RequestListView(items=[await show_request(services, request) for request in requests])


@get("/v1/privacy/requests/{request_id:uuid}")
async def get_request(request_id: FromPath[UUID], services: Wired) -> Response[RequestView]:
    """Show how a request stands, also when its user is gone: who knows the id may see it."""
    request = await services.stores.requests.find(request_id)
    if request is None:
        raise RequestNotFound
    return Response(await show_request(services, request), headers=NO_STORE)


def read_restriction(order: dict[str, object]) -> bool:
    """Read the body of a PUT; raise InvalidParameter with a pointer."""
    restricted = order.get("restricted")
    if not isinstance(restricted, bool):
        raise InvalidParameter("restricted is neither true nor false", pointer="#/restricted")
    return restricted


async def show_request(services: Services, request: Request) -> RequestView:
    """Describe a request, an erasure with what is known of copies at providers."""
    is_erasure = request.kind is Right.ERASURE
    copies = await services.stores.requests.copies(request.id) if is_erasure else []
    waits = is_erasure and request.user_id is not None and request.completed_at is None
    holds = await services.stores.holds.in_force(request.user_id or "") if waits else []
    return RequestView(
        id=request.id,
        kind=request.kind,
        status=request.status,
        received_at=whole_second(request.received_at),
        expected_by=whole_second(request.expected_by),
        answer_by=whole_second(request.answer_by),
        destroyed_at=moment(request.destroyed_at),
        completed_at=moment(request.completed_at),
        provider_copies=[_show_copies(known) for known in copies] or UNSET,
        is_held=True if holds else UNSET,
        ground=request.ground if is_erasure else UNSET,
    )


def _show_copies(known: ProviderCopies) -> ProviderCopiesView:
    word = PROVIDER_WORDS[Evidence(known.evidence)]
    return ProviderCopiesView(provider=known.provider, word=word, copies=known.copies, until=moment(known.until))


async def _show_me(services: Services, user: HeldUser) -> MeView:
    held = services.stores.held
    account = await services.stores.credits.account(user.id)
    return MeView(
        id=user.id,
        created_on=user.created_on,
        last_seen_on=user.last_seen_on,
        is_restricted=user.restricted_at is not None,
        is_erasing=user.erasing_at is not None,
        jobs=await held.job_states(user.id),
        held=await held.counts(user.id),
        credits=account.credits,
        credits_held=account.held,
        holds=[_show_hold(hold) for hold in await services.stores.holds.in_force(user.id)] or UNSET,
        breaches=[_show_breach(breach) for breach in await services.stores.breaches.of_user(user.id)] or UNSET,
    )


def _show_breach(breach: Breach) -> MyBreachView:
    facts = breach.facts
    return MyBreachView(
        id=breach.id,
        declared_at=whole_second(breach.declared_at),
        nature=facts.nature,
        consequences=facts.consequences,
        measures=facts.measures,
        contact=facts.contact,
    )


def _show_hold(hold: Hold) -> MyHoldView:
    return MyHoldView(reference=hold.reference, since=whole_second(hold.confirmed_at or hold.proposed_at))


async def _user(services: Services, user_id: str) -> HeldUser:
    user = await services.stores.held.user(user_id)
    if user is None:
        raise Unauthenticated("nobody has this token any more")
    return user


async def _require_not_erasing(services: Services, user_id: str) -> None:
    if (await _user(services, user_id)).erasing_at is not None:
        raise Erasing


async def _record(services: Services, user_id: str, kind: Right) -> Request:
    days = services.policies.profile.rights.answer_within_days
    return await services.stores.requests.add(user_id, kind, answer_within_days=days)

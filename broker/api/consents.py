"""What a user agrees to, over HTTP: seen, given and withdrawn by the user alone."""

from typing import Any, cast

import msgspec
from litestar import Response, get, put
from msgspec import UNSET, UnsetType

from broker.api.bodies import read_object
from broker.api.deps import HttpRequest, Known, Wired
from broker.api.views import Moment, whole_second
from broker.consent_errors import UnderAge, UnknownNotice
from broker.consents import Consent, ConsentEvent, Wish
from broker.errors import InvalidParameter
from broker.noticeboard import Shown
from broker.notices.consent_record import ConsentRecord, record_of
from broker.notices.facts import NoticeFacts
from broker.parameters import invalid
from broker.services import Services
from policies.consent import Purpose

NOT_GIVEN = "not_given"
_NAMES = frozenset({"notice_version", "give", "withdraw", "is_of_age"})


class ConsentStateView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a user stands under the notice in force; `status` is `given`, `withdrawn` or `not_given`."""

    purpose: str
    is_required: bool
    status: str
    at: Moment | UnsetType = UNSET


class ConsentsView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked, what is missing before a job is taken in, and every record, in the shape of ISO/IEC TS 27560."""

    notice_version: str
    missing: list[str]
    consents: list[ConsentStateView]
    records: list[ConsentRecord]
    min_age: int | UnsetType = UNSET
    is_of_age: bool | UnsetType = UNSET


class NewConsentsView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a user gives and withdraws, for one version of the notice; `is_of_age`: at least `min_age` years old."""

    notice_version: str
    give: list[str] | UnsetType = UNSET
    withdraw: list[str] | UnsetType = UNSET
    is_of_age: bool | UnsetType = UNSET


@get("/v1/me/consents")
async def get_consents(services: Wired, caller: Known) -> ConsentsView:
    """Show what a user agrees to."""
    return await show_consents(services, caller.user_id)


@put("/v1/me/consents")
async def put_consents(request: HttpRequest, services: Wired, caller: Known) -> Response[ConsentsView]:
    """Give and withdraw; what is not named stays as it is, and the same again adds nothing."""
    wish = await wish_of(services, read_wish(await read_object(request, services, names=_NAMES)))
    await services.stores.consents.record(caller.user_id, wish)
    return Response(await show_consents(services, caller.user_id), status_code=200)


def read_wish(order: dict[str, object]) -> NewConsentsView:
    """Read the body of a PUT; raise InvalidParameter with a pointer."""
    version, is_of_age = order.get("notice_version"), order.get("is_of_age", UNSET)
    if not isinstance(version, str):
        raise invalid("notice_version", "is missing, or no text", at="#")
    if not isinstance(is_of_age, bool | UnsetType):
        raise invalid("is_of_age", "is neither true nor false", at="#")
    give, withdraw = _purposes(order, "give"), _purposes(order, "withdraw")
    if set(give) & set(withdraw):
        raise InvalidParameter("a purpose is given and withdrawn at once", pointer="#/withdraw")
    if not give and not withdraw:
        raise InvalidParameter("nothing is given or withdrawn", pointer="#/give")
    return NewConsentsView(notice_version=version, give=give, withdraw=withdraw, is_of_age=is_of_age)


async def wish_of(services: Services, order: NewConsentsView) -> Wish:
    """
    Check an order against the notice that it names.

    Raises UnknownNotice where the version is none to be agreed to (what is withdrawn may name any that there was),
    UnderAge, and InvalidParameter where a purpose is not asked for or the age is not stated.
    """
    give, withdraw = tuple(order.give or ()), tuple(order.withdraw or ())
    shown = await services.noticeboard.shown()
    facts = await _facts(services, shown, order.notice_version, is_giving=bool(give))
    for name in give:
        if name not in facts.purposes:
            raise InvalidParameter("a purpose is not asked for by this notice", pointer="#/give")
    return Wish(
        notice=order.notice_version,
        give=give,
        withdraw=withdraw,
        stated_age=_stated_age(order, facts) if give else None,
    )


async def show_consents(services: Services, user_id: str) -> ConsentsView:
    """Put together what counts and what was recorded."""
    shown = await services.noticeboard.shown()
    standing = await services.stores.consents.standing(user_id)
    rows = await services.stores.consents.of_user(user_id)
    facts = shown.current.facts
    noted = {version: await _noted(services, shown, version) for version in {row.notice for row in rows}}
    missing = [str(purpose) for purpose in facts.required if purpose not in standing.purposes]
    return ConsentsView(
        notice_version=shown.current.version,
        missing=missing,
        consents=[_state(purpose, facts, standing.purposes, rows) for purpose in facts.purposes],
        records=[record_of(row, noted[row.notice]) for row in rows],
        min_age=facts.min_age or UNSET,
        is_of_age=standing.stated_age >= facts.min_age if facts.min_age else UNSET,
    )


def _state(purpose: Purpose, facts: NoticeFacts, given: frozenset[str], rows: list[Consent]) -> ConsentStateView:
    last = next((row for row in reversed(rows) if row.purpose == purpose), None)
    is_given = purpose in given
    is_withdrawn = last is not None and last.event is ConsentEvent.WITHDRAWN
    status = ConsentEvent.GIVEN if is_given else ConsentEvent.WITHDRAWN if is_withdrawn else NOT_GIVEN
    at = whole_second(last.at) if last is not None and (is_given or is_withdrawn) else UNSET
    return ConsentStateView(purpose=purpose, is_required=purpose in facts.required, status=status, at=at)


async def _facts(services: Services, shown: Shown, version: str, *, is_giving: bool) -> NoticeFacts:
    notice = shown.find(version)
    if notice is None and not is_giving:
        notice = await services.noticeboard.find(version)
    if notice is None:
        there_is = " or ".join(one.version for one in (shown.current, shown.next) if one is not None)
        raise UnknownNotice(f"there is no such notice to agree to; there is {there_is}", pointer="#/notice_version")
    return notice.facts


async def _noted(services: Services, shown: Shown, version: str) -> NoticeFacts:
    notice = shown.find(version) or await services.noticeboard.find(version)
    assert notice is not None  # rows refer to it
    return notice.facts


def _stated_age(order: NewConsentsView, facts: NoticeFacts) -> int | None:
    if not facts.min_age:
        return None
    if order.is_of_age is UNSET:
        raise InvalidParameter(f"is_of_age is missing: at least {facts.min_age} years old?", pointer="#/is_of_age")
    if not order.is_of_age:
        raise UnderAge(f"users have to be at least {facts.min_age} years old", pointer="#/is_of_age")
    return facts.min_age


def _purposes(order: dict[str, object], name: str) -> list[str]:
    given = order.get(name, [])
    if not isinstance(given, list) or any(word not in list(Purpose) for word in cast("list[Any]", given)):
        raise InvalidParameter(f"{name} is no list of purposes: {', '.join(Purpose)}", pointer=f"#/{name}")
    return list(dict.fromkeys(cast("list[str]", given)))

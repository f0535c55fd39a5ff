"""Breaches on the operator's listener: declared to everybody concerned, and exported for the authority."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from broker.api.bodies import read_json
from broker.api.deps import HttpRequest, Operators, Wired, operator_of
from broker.api.views import whole_second
from broker.breaches import REPORT_WITHIN, TYPE, BreachFacts, Record
from broker.errors import InvalidParameter
from broker.services import Services
from broker.store.breaches import Breach


class NewBreachView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A breach: the facts, since when it is known, and, where it is known, between which times data was touched."""

    facts: BreachFacts
    aware_at: datetime
    since: datetime | None = None
    until: datetime | None = None


@post("/breaches")
async def declare_breach(request: HttpRequest, services: Wired, operators: Operators) -> Response[Record]:
    """Declare a breach: from now on everybody whom it concerns is told."""
    operator = operator_of(request, operators)
    new = read_breach(await read_json(request, services), now=datetime.now(UTC))
    breach = await services.stores.breaches.declare(
        new.facts, operator=operator, aware_at=new.aware_at, since=new.since, until=new.until
    )
    return Response(_record(services, breach), status_code=201)


@get("/breaches/{breach_id:uuid}")
async def get_breach(breach_id: FromPath[UUID], request: HttpRequest, services: Wired, operators: Operators) -> Record:
    """Export the record of a breach, with how many were told by now."""
    operator_of(request, operators)
    return _record(services, await services.stores.breaches.find(breach_id))


def read_breach(data: bytearray, *, now: datetime) -> NewBreachView:
    """Read a breach; raise InvalidParameter that says what is wrong."""
    try:
        new = msgspec.json.decode(data, type=NewBreachView)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidParameter(f"not a breach: {exc}") from exc
    if any(at is not None and at.tzinfo is None for at in (new.aware_at, new.since, new.until)):
        raise InvalidParameter("a time needs its zone: 2026-11-26T12:00:00Z")
    if new.aware_at > now:
        raise InvalidParameter("aware_at lies in the future")
    if (new.since is None) != (new.until is None) or (new.since and new.until and new.since >= new.until):
        raise InvalidParameter("since and until come together, since first")
    if now > new.aware_at + REPORT_WITHIN and not new.facts.why_late:
        raise InvalidParameter("known for more than 72 hours: why_late says why (GDPR Art. 33(1))")
    return new


def _record(services: Services, breach: Breach) -> Record:
    publisher = services.policies.profile.publisher
    return Record(
        type=TYPE,
        id=breach.id,
        aware_at=whole_second(breach.aware_at),
        declared_at=whole_second(breach.declared_at),
        report_by=whole_second(breach.aware_at + REPORT_WITHIN),
        since=breach.since and whole_second(breach.since),
        until=breach.until and whole_second(breach.until),
        users_concerned=breach.concerned,
        users_told=breach.told,
        controller=", ".join(line for line in (publisher.name, publisher.address, publisher.email) if line),
        officer=publisher.officer,
        facts=breach.facts,
    )

"""
Which provider runs a job, and what follows when one did not deliver.

Pure: configuration, facts and outcomes in, a decision out. Exposure and retention are asked first and never widened; a
provider that cannot take a picture or a parameter is no candidate, so that no job succeeds without them.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

import msgspec

from broker.operations import OPERATIONS, Value
from broker.routes import After, Config, Provider, Route
from policies.base import ProviderTerms, Refuse
from providers.base import Model
from providers.failures import FailureKind
from providers.templates import names_in

Disclose = Callable[[ProviderTerms], Refuse | None]


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a job asks of a provider; `pixels` of its largest picture, as far as it is known."""

    operation: str
    parameters: Mapping[str, Value]
    pictures: int = 1
    pixels: int | None = None

    @classmethod
    def any_of(cls, operation: str) -> "Needs":
        """What the plainest task of an operation asks for; a required text stands there empty."""
        known = OPERATIONS[operation]
        plain = {
            name: "" if p.default is None else p.default for name, p in known.parameters.items() if p.default != ""
        }
        return cls(operation=operation, parameters=plain, pictures=known.pictures.min)

    @property
    def count(self) -> int:
        """How many outputs are wanted."""
        count = self.parameters.get("count", 1)
        return count if isinstance(count, int) else 1


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider stands at this moment: whether a live worker runs it, is unhealthy, or its pool is congested."""

    is_live: bool = True
    is_open: bool = False
    """Its breaker is open: it comes last, and not never."""
    queued_for_s: float = 0.0
    """How long the oldest job waits for its pool."""


HEALTHY = Standing()


class Turn(IntEnum):
    """When a candidate is tried: whatever its tier, after all of an earlier turn."""

    FIRST = 0
    CROWDED = 1  # jobs wait for its pool longer than the route allows
    UNHEALTHY = 2  # its breaker is open


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One provider of a route: a candidate, or the reason why not."""

    provider: str
    tier: int
    weight: int
    reason: str = ""
    is_refused: bool = False
    """Whether a policy said no: a hard limit, not a matter of luck."""
    turn: Turn = Turn.FIRST


def explain(
    config: Config,
    needs: Needs,
    *,
    disclose: Disclose,
    standings: Mapping[str, Standing],
    seed: int = 0,
) -> list[Verdict]:
    """
    Judge every provider of an operation's route: candidates first, in the order in which they are tried.

    One seed is one order, in every process, while the providers stand the same.
    """
    route = config.route(needs.operation)
    if route is None:
        return []
    drawn = random.Random(seed)  # noqa: S311 - spreads load; the same for a job wherever it is asked
    judged = [
        _judge(config, route, name, tier=tier, needs=needs, disclose=disclose, standings=standings)
        for tier in range(len(route.tiers))
        for name in _drawn(route.tiers[tier], drawn)
    ]
    return sorted(judged, key=lambda verdict: (bool(verdict.reason), verdict.turn))


def _judge(
    config: Config,
    route: Route,
    name: str,
    *,
    tier: int,
    needs: Needs,
    disclose: Disclose,
    standings: Mapping[str, Standing],
) -> Verdict:
    provider = config.providers[name]
    standing = standings.get(name, HEALTHY)
    refusal = disclose(provider.terms)
    reason = refusal.reason if refusal else cannot(provider, needs) or _beyond(route, provider, needs)
    if not reason and not standing.is_live:
        reason = f"no live worker of the pool {provider.pool} runs it"
    return Verdict(
        provider=name,
        tier=tier,
        weight=route.tiers[tier][name],
        reason=reason,
        is_refused=refusal is not None,
        turn=_turn(route, standing),
    )


def _turn(route: Route, standing: Standing) -> Turn:
    if standing.is_open:
        return Turn.UNHEALTHY
    overflows = route.overflow_after_s is not None and standing.queued_for_s > route.overflow_after_s
    return Turn.CROWDED if overflows else Turn.FIRST


def cannot(provider: Provider, needs: Needs) -> str:
    """Say why a provider cannot do a task as it is asked; empty where it can."""
    model = provider.models.get(needs.operation)
    if model is None:
        return f"it does not run {needs.operation}"
    if reason := _cannot_pictures(provider, model, needs):
        return reason
    if needs.count > model.max_outputs:
        return f"it makes {model.max_outputs} outputs at most"
    return _cannot_parameters(needs, names_in(model.input), model.values)


def _cannot_pictures(provider: Provider, model: Model, needs: Needs) -> str:
    terms, named = provider.adapter_terms, names_in(model.input)
    most = terms.max_pictures if model.max_pictures is None else min(model.max_pictures, terms.max_pictures)
    if needs.pictures > most:
        return f"it takes {most} pictures at most"
    if not terms.sends_pictures and not _names_all(named, needs.pictures):
        return "it would not be given every picture: its input names neither $image nor $images"
    if model.max_pixels is not None and needs.pixels is not None and needs.pixels > model.max_pixels:
        return f"it takes {model.max_pixels} pixels at most"
    return ""


def _names_all(named: frozenset[str], pictures: int) -> bool:
    if pictures == 0 or "images" in named:
        return True
    return bool({"image", "image1"} & named) and all(f"image{n}" in named for n in range(2, pictures + 1))


def _cannot_parameters(needs: Needs, named: frozenset[str], values: Mapping[str, tuple[Value, ...]]) -> str:
    known = OPERATIONS[needs.operation].parameters
    for name, value in needs.parameters.items():
        if name in values and value not in values[name]:
            return f"it does not take this {name}"
        is_default = name in known and known[name].default == value
        if name not in named and not is_default:
            return f"it does not take the parameter {name}"
    return ""


def _beyond(route: Route, provider: Provider, needs: Needs) -> str:
    expected = provider.models[needs.operation].cost_usd
    if route.max_usd is not None and expected > route.max_usd:
        return f"it costs about {expected} USD, the route allows {route.max_usd}"
    return ""


def _drawn(tier: Mapping[str, int], drawn: random.Random) -> list[str]:
    """Draw a tier's providers by weight, without putting back; the order in which the file has them is no matter."""
    left = dict(sorted(tier.items()))
    order: list[str] = []
    while left:
        name = drawn.choices(list(left), list(left.values()))[0]
        order.append(name)
        del left[name]
    return order


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """Try this provider, after so many seconds."""

    provider: str
    after_s: float = 0.0


class GiveUp(msgspec.Struct, frozen=True, kw_only=True):
    """No provider is left that may be tried: the job fails with what the last one said."""

    kind: FailureKind


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt at one provider ended."""

    provider: str
    kind: FailureKind
    after_s: float | None = None
    ago_s: float = 0.0
    """How long ago it ended: a job that waited in its queue has waited."""
    cost_usd: float = 0.0


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often the same provider is tried again after a failure, and whether another one may follow."""

    same: int
    other: bool = True


RETRY: dict[FailureKind, Retry] = {
    FailureKind.INVALID_INPUT: Retry(same=0, other=False),
    FailureKind.CONTENT_REJECTED: Retry(same=0, other=False),  # unless the route says so
    FailureKind.CANCELED: Retry(same=0, other=False),
    FailureKind.UNSUPPORTED: Retry(same=0),
    FailureKind.AUTH: Retry(same=0),
    FailureKind.PAYMENT: Retry(same=0),
    FailureKind.RATE_LIMITED: Retry(same=2),
    FailureKind.OVERLOADED: Retry(same=2),
    FailureKind.PROVIDER_ERROR: Retry(same=2),
    FailureKind.NETWORK: Retry(same=2),
    FailureKind.TIMEOUT: Retry(same=1),
    FailureKind.BAD_OUTPUT: Retry(same=1),
    FailureKind.LOST: Retry(same=1),
    FailureKind.UNCERTAIN: Retry(same=0, other=False),  # unless the route says so
}
BACK_OFF_S = (0.5, 2.0)
LONG_WAIT_S = 10.0
"""A provider that wants to be left alone longer than this waits for nobody while another can be asked."""


def after_failure(
    route: Route, ranked: Sequence[str], tried: Sequence[Tried], *, estimates: Mapping[str, float]
) -> Again | GiveUp:
    """Decide what follows the last attempt; the kinds of failure alone decide, and what is left of the price."""
    last = tried[-1]
    rule = RETRY[last.kind]
    if len(tried) >= route.tries:
        return GiveUp(kind=last.kind)
    affordable = [name for name in ranked if _affords(route, tried, estimates.get(name, 0.0))]
    spent_here = sum(attempt.provider == last.provider for attempt in tried)
    fresh = [name for name in affordable if all(attempt.provider != name for attempt in tried)]
    wait_s = last.after_s if last.after_s is not None else BACK_OFF_S[min(spent_here, len(BACK_OFF_S)) - 1]
    may_go_on = _may_go_on(route, last.kind)
    if last.provider in affordable and spent_here <= rule.same and not (fresh and may_go_on and wait_s > LONG_WAIT_S):
        return Again(provider=last.provider, after_s=max(0.0, wait_s - last.ago_s))
    if fresh and may_go_on:
        return Again(provider=fresh[0])
    return GiveUp(kind=last.kind)


def _may_go_on(route: Route, kind: FailureKind) -> bool:
    if kind is FailureKind.CONTENT_REJECTED:
        return route.on_reject is After.NEXT
    if kind is FailureKind.UNCERTAIN:
        return route.on_uncertain is After.NEXT
    return RETRY[kind].other


def _affords(route: Route, tried: Sequence[Tried], expected_usd: float) -> bool:
    spent = sum(attempt.cost_usd for attempt in tried)
    return route.max_usd is None or spent + expected_usd <= route.max_usd

"""What follows an attempt that failed: the kind of its failure decides, and what is left of tries and price."""

from typing import Any

import msgspec
import pytest

from broker.routes import After, Route
from broker.routing import BACK_OFF_S, LONG_WAIT_S, RETRY, Again, GiveUp, Tried, after_failure
from providers.failures import FailureKind

ALL = ("a", "b", "c")

RULES = {
    FailureKind.INVALID_INPUT: (0, "nobody"),
    FailureKind.CONTENT_REJECTED: (0, "nobody"),
    FailureKind.CANCELED: (0, "nobody"),
    FailureKind.UNCERTAIN: (0, "nobody"),
    FailureKind.UNSUPPORTED: (0, "the next"),
    FailureKind.AUTH: (0, "the next"),
    FailureKind.PAYMENT: (0, "the next"),
    FailureKind.RATE_LIMITED: (2, "the next"),
    FailureKind.OVERLOADED: (2, "the next"),
    FailureKind.PROVIDER_ERROR: (2, "the next"),
    FailureKind.NETWORK: (2, "the next"),
    FailureKind.TIMEOUT: (1, "the next"),
    FailureKind.BAD_OUTPUT: (1, "the next"),
    FailureKind.LOST: (1, "the next"),
}
"""How often the same provider is asked again, and who is asked then; docs/routing.md has the same table."""


def route(**changed: Any) -> Route:
    plain = Route(operation="edit", tiers=({"a": 1}, {"b": 1}, {"c": 1}), tries=20)
    return msgspec.structs.replace(plain, **changed)


def failed(*names: str, kind: FailureKind = FailureKind.NETWORK, **last: Any) -> list[Tried]:
    """Attempts at these providers that ended this way; `last` is more that the last one said."""
    tried = [Tried(provider=name, kind=kind) for name in names]
    return [*tried[:-1], Tried(provider=names[-1], kind=kind, **last)]


def walk(kind: FailureKind, found: Route) -> list[str]:
    """Every provider that is tried while all of them fail in the same way."""
    tried: list[Tried] = failed("a", kind=kind)
    while isinstance(step := after_failure(found, ALL, tried, estimates={}), Again):
        tried.append(Tried(provider=step.provider, kind=kind))
    assert step == GiveUp(kind=kind)
    return [attempt.provider for attempt in tried]


@pytest.mark.parametrize("kind", FailureKind)
def test_the_kind_alone_decides_who_is_asked_again(kind: FailureKind) -> None:
    """The same provider so often, then the next one or nobody; every kind has its rule."""
    again, other = RULES[kind]
    names = ALL if other == "the next" else ALL[:1]
    assert walk(kind, route()) == [name for name in names for _ in range(1 + again)]
    assert set(RETRY) == set(FailureKind)


@pytest.mark.parametrize("tries", [1, 2, 4, 7])
def test_a_job_gets_so_many_attempts_in_all(tries: int) -> None:
    """`tries` counts every attempt, at whichever provider."""
    assert len(walk(FailureKind.NETWORK, route(tries=tries))) == tries


def test_a_rejected_picture_is_shopped_around_only_where_the_route_says_so() -> None:
    """By default nobody else is shown it, whatever else may be tried; with `on_reject = "next"` each is asked once."""
    assert walk(FailureKind.CONTENT_REJECTED, route()) == ["a"]
    assert walk(FailureKind.CONTENT_REJECTED, route(on_reject=After.NEXT)) == ["a", "b", "c"]
    assert walk(FailureKind.CONTENT_REJECTED, route(on_uncertain=After.NEXT)) == ["a"]
    later = [*failed("a", "a"), Tried(provider="b", kind=FailureKind.CONTENT_REJECTED)]
    assert after_failure(route(), ALL, later, estimates={}) == GiveUp(kind=FailureKind.CONTENT_REJECTED)


def test_an_uncertain_order_is_not_paid_twice_unless_the_route_says_so() -> None:
    """By default the job ends; with `on_uncertain = "next"` others are asked, never the same one again."""
    assert walk(FailureKind.UNCERTAIN, route()) == ["a"]
    assert walk(FailureKind.UNCERTAIN, route(on_uncertain=After.NEXT)) == ["a", "b", "c"]
    assert walk(FailureKind.UNCERTAIN, route(on_reject=After.NEXT)) == ["a"]


def test_waits_grow_unless_the_provider_says_how_long() -> None:
    """Half a second, then two; Retry-After counts instead where there is one, zero included."""
    assert BACK_OFF_S == (0.5, 2.0)
    assert after_failure(route(), ALL, failed("a"), estimates={}) == Again(provider="a", after_s=0.5)
    assert after_failure(route(), ALL, failed("a", "a"), estimates={}) == Again(provider="a", after_s=2.0)
    for after_s in (0.0, 1.5, LONG_WAIT_S):
        step = after_failure(route(), ALL, failed("a", "a", after_s=after_s), estimates={})
        assert step == Again(provider="a", after_s=after_s)


def test_the_next_provider_is_asked_at_once() -> None:
    """What one provider wants to be spared is no wait for another."""
    tried = failed("a", "a", "a", after_s=9.0)
    assert after_failure(route(), ALL, tried, estimates={}) == Again(provider="b")


def test_nobody_waits_long_while_another_can_be_asked() -> None:
    """Retry-After beyond ten seconds goes to the next provider; the last one that is left is waited for."""
    tried = failed("a", kind=FailureKind.RATE_LIMITED, after_s=30.0)
    assert after_failure(route(), ALL, tried, estimates={}) == Again(provider="b")
    assert after_failure(route(), ["a"], tried, estimates={}) == Again(provider="a", after_s=30.0)
    last = [*failed("b", "c", kind=FailureKind.AUTH), *tried]
    assert after_failure(route(), ALL, last, estimates={}) == Again(provider="a", after_s=30.0)


def test_a_wait_is_waited_once() -> None:
    """A job that waited in its queue goes on where it was to go, after what is left: it never waits anew for ever."""
    for ago_s, left_s in ((0.0, 30.0), (29.0, 1.0), (30.0, 0.0), (31.0, 0.0)):
        tried = failed("a", kind=FailureKind.RATE_LIMITED, after_s=30.0, ago_s=ago_s)
        assert after_failure(route(), ["a"], tried, estimates={}) == Again(provider="a", after_s=left_s)
        assert after_failure(route(), ALL, tried, estimates={}) == Again(provider="b"), "the choice does not change"


def test_the_next_is_the_best_ranked_that_was_not_tried() -> None:
    """The ranking is that of this moment: who became unhealthy meanwhile stands last in it."""
    tried = failed("a", kind=FailureKind.AUTH)
    assert after_failure(route(), ["c", "a", "b"], tried, estimates={}) == Again(provider="c")
    assert after_failure(route(), ["a"], tried, estimates={}) == GiveUp(kind=FailureKind.AUTH)


def test_who_is_no_candidate_any_more_is_not_asked_again() -> None:
    """A provider that left the route, or whose workers are gone, is passed over though its failure would be retried."""
    assert after_failure(route(), ["b", "c"], failed("a"), estimates={}) == Again(provider="b")
    assert after_failure(route(), [], failed("a"), estimates={}) == GiveUp(kind=FailureKind.NETWORK)


def test_attempts_of_one_job_cost_no_more_than_the_cap() -> None:
    """What was paid counts with what is expected; a cheaper provider may still fit, and the same one may not."""
    tried = failed("a", cost_usd=0.03)
    capped = route(max_usd=0.05)
    dear = {"a": 0.03, "b": 0.03, "c": 0.02}
    assert after_failure(capped, ALL, tried, estimates=dear) == Again(provider="c")
    assert after_failure(capped, ALL, tried, estimates={**dear, "c": 0.021}) == GiveUp(kind=FailureKind.NETWORK)
    assert after_failure(capped, ALL, tried, estimates={**dear, "a": 0.02}) == Again(provider="a", after_s=0.5)
    assert after_failure(route(), ALL, tried, estimates=dear) == Again(provider="a", after_s=0.5)


def test_failures_of_different_kinds_count_together() -> None:
    """Two lost connections and a timeout are three attempts at one provider: the next one is asked."""
    tried = [*failed("a", "a"), Tried(provider="a", kind=FailureKind.TIMEOUT)]
    assert after_failure(route(), ALL, tried, estimates={}) == Again(provider="b")

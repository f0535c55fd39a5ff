"""Which providers may run a job, and in which order."""

import random
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.routes import After, Config, OutsideProvider, Provider, Route
from broker.routing import Again, Needs, Standing, Tried, after_failure, explain
from policies.base import ProviderTerms, RefusalCode, Refuse
from policies.disclosure import Disclosure
from providers.base import Exposure
from providers.failures import FailureKind
from tests.routes import EDIT, MOST, TAKES_ALL, UPSCALE, anybody, config, ours, provider, ranked

OPEN = Standing(is_open=True)
JOBS = range(2_000)


def needs(**changed: Any) -> Needs:
    return msgspec.structs.replace(EDIT, **changed)


def shares(config: Config, place: int = 0) -> dict[str, float]:
    """How many of many jobs have a provider at this place of their order."""
    drawn = Counter(ranked(config, job=random.Random(n).getrandbits(128))[place] for n in JOBS)
    return {name: count / len(JOBS) for name, count in drawn.items()}


def test_weights_share_the_jobs_of_a_tier() -> None:
    """Nine to one sends nine jobs of ten to the first, and the rest to the other."""
    assert shares(config({"gpu": 9, "other": 1})) == pytest.approx({"gpu": 0.9, "other": 0.1}, abs=0.03)
    assert shares(config({"a": 5, "b": 3, "c": 2})) == pytest.approx({"a": 0.5, "b": 0.3, "c": 0.2}, abs=0.04)


def test_who_takes_over_is_drawn_by_weight_too() -> None:
    """Where the first fails, the others share its jobs as they would without it."""
    second = shares(config({"a": 98, "b": 1, "c": 1}), place=1)
    assert second["b"] == pytest.approx(0.49, abs=0.05)
    assert second["c"] == pytest.approx(0.49, abs=0.05)


def test_a_refused_provider_does_not_change_the_shares_of_the_rest() -> None:
    """Among those that are left the weights hold as they are written."""
    without = config({"a": 5, "b": 3, "c": 2}, providers={"a": provider(max_outputs=1, input={"p": "$prompt"})})
    assert shares(without) == pytest.approx({"b": 0.6, "c": 0.4}, abs=0.04)


def test_consecutive_job_ids_are_spread_as_well() -> None:
    """Whoever counts its job ids up gets the same shares."""
    firsts = Counter(ranked(config({"a": 1, "b": 1}), job=n)[0] for n in JOBS)
    assert firsts["a"] / len(JOBS) == pytest.approx(0.5, abs=0.03)


def test_every_process_draws_the_same_for_a_job() -> None:
    """The order is drawn from the job's id: broker, gpu worker and relay agree, on any machine and Python."""
    route = config({"a": 5, "b": 3, "c": 2}, {"d": 1, "e": 1})
    orders = ["".join(ranked(route, job=job)) for job in range(6)]
    assert orders == ["cbade", "acbde", "cbade", "abced", "abcde", "bcaed"]
    turned = config({"c": 2, "b": 3, "a": 5}, {"e": 1, "d": 1})
    assert ["".join(ranked(turned, job=job)) for job in range(6)] == orders, "in whichever order the file has them"


def test_tiers_are_tried_in_their_order() -> None:
    """Whatever the weights, no provider of a later tier comes before one of an earlier."""
    route = config({"a": 1, "b": 1}, {"c": 1000}, {"d": 1, "e": 500})
    for job in range(200):
        order = ranked(route, job=job)
        assert (set(order[:2]), order[2], set(order[3:])) == ({"a", "b"}, "c", {"d", "e"})


def test_an_operation_without_a_route_has_no_candidates() -> None:
    """Nothing is guessed."""
    assert ranked(config({"a": 1}), UPSCALE) == []


def test_the_unhealthy_come_last_and_are_not_left_out() -> None:
    """A breaker that is open moves a provider behind all others, over tiers; with all of them open all stay."""
    route = config({"a": 1}, {"b": 1}, {"c": 1})
    assert ranked(route, standings={"a": OPEN}) == ["b", "c", "a"]
    assert ranked(route, standings={"a": OPEN, "b": OPEN}) == ["c", "a", "b"]
    assert ranked(route, standings={"a": OPEN, "b": OPEN, "c": OPEN}) == ["a", "b", "c"]


def test_a_provider_without_a_live_worker_is_no_candidate() -> None:
    """Nobody would take the job up; the reason names the pool."""
    route = config({"a": 1, "b": 1})
    assert ranked(route, standings={"a": Standing(is_live=False)}) == ["b"]
    verdicts = explain(route, EDIT, disclose=anybody, standings={"a": Standing(is_live=False)})
    assert {v.provider: v.reason for v in verdicts}["a"] == "no live worker of the pool relay runs it"


@pytest.mark.parametrize(
    ("gpu", "other", "order"),
    [
        (Standing(queued_for_s=4.9), Standing(), ["gpu", "other", "last"]),
        (Standing(queued_for_s=5.1), Standing(), ["other", "last", "gpu"]),
        (Standing(queued_for_s=5.1), OPEN, ["last", "gpu", "other"]),
        (Standing(queued_for_s=5.1, is_open=True), OPEN, ["last", "gpu", "other"]),
        (Standing(is_live=False), Standing(), ["other", "last"]),
    ],
)
def test_a_crowded_pool_overflows(gpu: Standing, other: Standing, order: list[str]) -> None:
    """When jobs wait too long for a pool, others come first; a crowded pool is still better than an open breaker."""
    providers: dict[str, Provider] = {"gpu": ours()}
    route = config({"gpu": 1}, {"other": 1}, {"last": 1}, operation="upscale", providers=providers, overflow_after_s=5)
    route.providers["other"] = provider(operation="upscale", input={"image": "$image", "scale": "$scale"})
    route.providers["last"] = provider(operation="upscale", input={"image": "$image"})
    assert ranked(route, UPSCALE, standings={"gpu": gpu, "other": other}) == order


def test_without_a_limit_nobody_overflows() -> None:
    """A pool is left only where the route says when."""
    providers: dict[str, Provider] = {"gpu": ours()}
    route = config({"gpu": 1}, {"other": 1}, operation="upscale", providers=providers)
    assert ranked(route, UPSCALE, standings={"gpu": Standing(queued_for_s=3600)}) == ["gpu", "other"]


MODERATE = Disclosure(exposure=Exposure.EPHEMERAL, max_provider_retention_s=3600)


def allowed(policy: Disclosure, terms: ProviderTerms) -> bool:
    return terms.exposure.rank <= policy.exposure.rank and terms.retention_s <= policy.max_provider_retention_s


def refuse(policy: Disclosure, terms: ProviderTerms) -> Refuse | None:
    return None if allowed(policy, terms) else Refuse(code=RefusalCode.REFUSED, reason="too wide")


def test_what_a_policy_refuses_is_told_apart() -> None:
    """A hard limit is marked as one: admission answers 403 where nothing else stands in the way."""
    wide = {"a": provider(exposure=Exposure.LOGGED), "b": provider(max_pictures=1)}
    verdicts = explain(
        config({"a": 1, "b": 1}, providers=wide),
        needs(pictures=2),
        disclose=lambda terms: refuse(MODERATE, terms),
        standings={},
    )
    assert {v.provider: (v.is_refused, v.reason) for v in verdicts} == {
        "a": (True, "too wide"),
        "b": (False, "it takes 1 pictures at most"),
    }


PROVIDERS = st.builds(
    provider,
    exposure=st.sampled_from(Exposure),
    retention_s=st.sampled_from([0, 60, 3600, 86_400]),
    input=st.sampled_from([TAKES_ALL, {"prompt": "$prompt"}, {"image": "$image"}, {"n": "$count", **TAKES_ALL}, {}]),
    max_outputs=st.integers(1, 4),
    max_pictures=st.none() | st.integers(1, 4),
    max_pixels=st.none() | st.integers(1, 10),
    cost_usd=st.sampled_from([0.0, 0.01, 0.5]),
)
STANDINGS = st.builds(
    Standing, is_live=st.booleans(), is_open=st.booleans(), queued_for_s=st.sampled_from([0.0, 6.0, 60.0])
)
POLICIES = st.builds(
    Disclosure, exposure=st.sampled_from(Exposure), max_provider_retention_s=st.sampled_from([0, 60, 3600, 86_400])
)
TASKS = st.builds(
    Needs,
    operation=st.just("edit"),
    parameters=st.fixed_dictionaries({"prompt": st.just("x"), "count": st.integers(1, 4)}),
    pictures=st.integers(1, 5),
    pixels=st.none() | st.integers(1, 12),
)
KINDS = st.sampled_from(FailureKind)


@st.composite
def routes(draw: st.DrawFn) -> Config:
    known = draw(st.lists(PROVIDERS, min_size=1, max_size=6))
    tiers: list[dict[str, int]] = [{}, {}, {}]
    for n in range(len(known)):
        tiers[draw(st.integers(0, 2))][f"p{n}"] = draw(st.integers(1, 9))
    return config(
        *[tier for tier in tiers if tier],
        providers={f"p{n}": one for n, one in enumerate(known)},
        tries=draw(st.integers(1, 6)),
        max_usd=draw(st.none() | st.just(0.4)),
        overflow_after_s=draw(st.none() | st.just(5.0)),
        on_reject=draw(st.sampled_from(After)),
        on_uncertain=draw(st.sampled_from(After)),
    )


@given(config=routes(), policy=POLICIES, task=TASKS, data=st.data(), job_id=st.uuids())
def test_no_failover_widens_anything(
    config: Config, policy: Disclosure, task: Needs, data: st.DataObject, job_id: UUID
) -> None:
    """
    Whoever is tried in a walk may see the picture, keeps it no longer than allowed, and can do all that is asked.

    Whatever fails, and however providers stand by then; and the walk ends within its tries and its price.
    """
    route = config.routes["edit"]
    standings = st.dictionaries(st.sampled_from(sorted(config.providers)), STANDINGS)
    tried: list[Tried] = []
    while True:
        now = data.draw(standings)
        order = ranked(config, task, disclose=lambda terms: refuse(policy, terms), standings=now, job=job_id.int)
        assert set(order) == {name for name in config.providers if may_run(config, name, policy, task, now, route)}
        if not order:
            return
        estimates = {name: config.providers[name].models["edit"].cost_usd for name in order}
        step = after_failure(route, order, tried, estimates=estimates) if tried else Again(provider=order[0])
        if not isinstance(step, Again):
            return
        assert step.provider in order
        cost_usd = estimates[step.provider]
        assert route.max_usd is None or sum(t.cost_usd for t in tried) + cost_usd <= route.max_usd
        tried.append(Tried(provider=step.provider, kind=data.draw(KINDS), cost_usd=cost_usd))
        assert len(tried) <= route.tries


def may_run(
    config: Config, name: str, policy: Disclosure, task: Needs, standings: Mapping[str, Standing], route: Route
) -> bool:
    """The same rules once more, each for itself."""
    found = config.providers[name]
    assert isinstance(found, OutsideProvider)
    model = found.operation["edit"]
    named = {str(text).partition(":")[0] for text in model.input.values()}
    return (
        allowed(policy, found.terms)
        and task.pictures <= (model.max_pictures or MOST)
        and (task.pixels is None or model.max_pixels is None or task.pixels <= model.max_pixels)
        and ("$images" in named or ("$image" in named and task.pictures == 1))
        and "$prompt" in named
        and task.count <= model.max_outputs
        and ("$count" in named or task.count == 1)
        and (route.max_usd is None or model.cost_usd <= route.max_usd)
        and standings.get(name, Standing()).is_live
    )


def test_what_costs_more_than_the_route_allows_is_no_candidate() -> None:
    """The price cap is asked before the first attempt."""
    providers = {"dear": provider(cost_usd=0.05), "cheap": provider(cost_usd=0.02)}
    route = config({"dear": 1}, {"cheap": 1}, providers=providers, max_usd=0.02)
    assert ranked(route) == ["cheap"]
    reasons = {v.provider: v.reason for v in explain(route, EDIT, disclose=anybody, standings={})}
    assert reasons["dear"] == "it costs about 0.05 USD, the route allows 0.02"


def test_a_decision_takes_no_time() -> None:
    """A route of twenty providers is decided in a few milliseconds of this processor (budget: 50)."""
    names = [f"p{n}" for n in range(20)]
    wide: dict[str, Provider] = {
        name: provider(input={**TAKES_ALL, "more": [{"deep": {"strings": ["$attempt"] * 20}}] * 5}) for name in names
    }
    route = config(*[dict.fromkeys(names[n : n + 5], n + 1) for n in range(0, 20, 5)], providers=wide)
    standings = {name: Standing(is_open=n % 3 == 0) for n, name in enumerate(names)}
    took_s: list[float] = []
    for job in range(20):
        began_s = time.process_time()
        order = ranked(route, job=job, standings=standings)
        tried = [Tried(provider=order[0], kind=FailureKind.AUTH)]
        after_failure(route.routes["edit"], order, tried, estimates={})
        took_s.append(time.process_time() - began_s)
    assert sorted(took_s)[len(took_s) // 2] < 0.02

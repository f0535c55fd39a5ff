"""Two emulated providers on one route: what one does not deliver the other does, and never what it may not."""

from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.jobs import JobState
from broker.settings import Settings
from policies.toml_file import ConfigInvalid
from providers.failures import FailureKind
from tests.emulators.base import broken, running
from tests.emulators.replicate import SECRET, ReplicateEmulator, script
from tests.relay import (
    SECRET_VARIABLE,
    attempts,
    ended,
    receipt,
    relaying,
    replicate,
    route,
    sent,
    settings_with,
    theirs,
)
from tests.stack import running_services


class Pair(NamedTuple):
    """Two providers that can do the same."""

    first: ReplicateEmulator
    second: ReplicateEmulator

    def config(self, **more: object) -> str:
        """Both on one route, the second as the fallback of the first."""
        tiers = "[{ first = 1 }, { second = 1 }]"
        tables = replicate(self.first.url, name="first") + replicate(self.second.url, name="second")
        return tables + route("upscale", tiers, **more)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Generator[Pair]:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    pair = Pair(ReplicateEmulator(), ReplicateEmulator())
    pair.first.states = pair.second.states = []  # done at the first question
    with running(pair.first), running(pair.second):
        yield pair


async def test_what_one_provider_refuses_the_next_does(settings: Settings, tmp_path: Path, pair: Pair) -> None:
    """Credentials refused at the first: the second delivers, the receipt names copies at both, the user pays once."""
    async with relaying(settings, tmp_path, pair.config()) as services:
        script(pair.first, "auth")
        job = await ended(services, await sent(services))

        assert (job.state, job.charged) == (JobState.SUCCEEDED, True)
        assert [(a.provider, a.kind) for a in await attempts(services, job)] == [
            ("first", FailureKind.AUTH),
            ("second", None),
        ]
        assert {copy.provider for copy in await theirs(services, job)} == {"first", "second"}
        assert (await receipt(services, job)).provider_copies == "expires"
        assert job.cost_usd == pytest.approx(0.003 + 0.00125), "what is not told counts as expected"


async def test_a_tripped_provider_is_left_alone_by_the_next_job(settings: Settings, tmp_path: Path, pair: Pair) -> None:
    """After refused credentials the breaker is open for all: the next job goes to the second at once."""
    async with relaying(settings, tmp_path, pair.config()) as services:
        script(pair.first, "auth")
        await ended(services, await sent(services))
        before = len(pair.first.requests("order"))

        job = await ended(services, await sent(services))

        assert job.state is JobState.SUCCEEDED
        assert [a.provider for a in await attempts(services, job)] == ["second"]
        assert len(pair.first.requests("order")) == before


async def test_the_only_provider_is_tried_even_when_unhealthy(settings: Settings, tmp_path: Path, pair: Pair) -> None:
    """Unhealthy last, never nobody: with its breaker open and no other there, a provider still gets the job."""
    config = replicate(pair.first.url, name="first") + route("upscale", "[{ first = 1 }]")
    async with relaying(settings, tmp_path, config) as services:
        script(pair.first, "auth")
        assert (await ended(services, await sent(services))).state is JobState.FAILED

        assert (await ended(services, await sent(services))).state is JobState.SUCCEEDED


async def test_a_rejected_picture_is_not_shopped_around(settings: Settings, tmp_path: Path, pair: Pair) -> None:
    """Moderation at the first ends the job; the second never sees the picture."""
    async with relaying(settings, tmp_path, pair.config()) as services:
        script(pair.first, "moderated")
        job = await ended(services, await sent(services))

        assert (job.state, job.code) == (JobState.FAILED, "content_rejected")
        assert not pair.second.requests("order")


async def test_a_route_may_say_that_the_next_is_asked(settings: Settings, tmp_path: Path, pair: Pair) -> None:
    """`on_reject = "next"` shows the picture to the second."""
    async with relaying(settings, tmp_path, pair.config(on_reject="next")) as services:
        script(pair.first, "moderated")
        job = await ended(services, await sent(services))

        assert job.state is JobState.SUCCEEDED
        assert [a.provider for a in await attempts(services, job)] == ["first", "second"]


@pytest.mark.parametrize(("after", "orders", "state"), [("stop", 0, JobState.FAILED), ("next", 1, JobState.SUCCEEDED)])
async def test_an_order_without_an_answer_is_paid_twice_only_where_the_route_says_so(
    settings: Settings, tmp_path: Path, pair: Pair, *, after: str, orders: int, state: JobState
) -> None:
    """The first may have done the work: by default nobody else is paid, and its copies are `unknown`."""
    async with relaying(settings, tmp_path, pair.config(on_uncertain=after)) as services:
        script(pair.first, "lost_order")
        job = await ended(services, await sent(services))

        assert job.state is state
        assert job.charged is (state is JobState.SUCCEEDED)
        assert len(pair.second.requests("order")) == orders
        assert {c.evidence for c in await theirs(services, job) if c.provider == "first"} == {"unknown"}
        assert job.provider_copies == "unknown"


async def test_a_provider_that_is_not_there_has_no_copy(settings: Settings, tmp_path: Path, pair: Pair) -> None:
    """Nothing was sent: no custody row, no cost, and the second delivers."""
    config = replicate("http://127.0.0.1:9", name="first") + replicate(pair.second.url, name="second")
    config += route("upscale", "[{ first = 1 }, { second = 1 }]")
    async with relaying(settings, tmp_path, config) as services:
        job = await ended(services, await sent(services), within_s=40)

        assert job.state is JobState.SUCCEEDED
        tried = await attempts(services, job)
        assert [a.provider for a in tried][-1] == "second"
        assert {a.kind for a in tried[:-1]} == {FailureKind.NETWORK}
        assert {copy.provider for copy in await theirs(services, job)} == {"second"}
        assert job.cost_usd == pytest.approx(0.00125)


async def test_a_busy_provider_is_asked_again_and_then_the_next(settings: Settings, tmp_path: Path, pair: Pair) -> None:
    """Overload is tried again at the same provider twice, later; then the fallback delivers."""
    async with relaying(settings, tmp_path, pair.config()) as services:
        pair.first.next("order", *[broken(503)] * 3)
        job = await ended(services, await sent(services), within_s=40)

        assert job.state is JobState.SUCCEEDED
        assert [a.provider for a in await attempts(services, job)] == ["first", "first", "first", "second"]


async def test_a_price_cap_ends_the_search(settings: Settings, tmp_path: Path, pair: Pair) -> None:
    """An attempt that may have cost 0.003 leaves no room for another under a cap of 0.005."""
    async with relaying(settings, tmp_path, pair.config(max_usd=0.005)) as services:
        script(pair.first, "server_error")
        job = await ended(services, await sent(services))

        assert (job.state, job.code) == (JobState.FAILED, "provider_error")
        assert len(await attempts(services, job)) == 1
        assert not pair.second.requests("order")


async def test_no_failover_widens_what_the_profile_allows(settings: Settings, tmp_path: Path, pair: Pair) -> None:
    """
    xpictures-10: a fallback that keeps pictures longer than the profile allows is not asked, whatever the first does.
    """
    second = replicate(pair.second.url, name="second").replace("hosts =", "retention_s = 9_000_000\nhosts =")
    config = replicate(pair.first.url, name="first") + second + route("upscale", "[{ first = 1 }, { second = 1 }]")
    async with relaying(settings, tmp_path, config) as services:
        script(pair.first, "auth")
        job = await ended(services, await sent(services))

        assert (job.state, job.code) == (JobState.FAILED, "provider_refused")
        assert not pair.second.requests("order")


async def test_an_operation_that_only_leads_abroad_is_refused_at_the_start(
    settings: Settings, tmp_path: Path, pair: Pair
) -> None:
    """Where every provider of a route is beyond the profile, nobody starts, and the refusal says why."""
    config = replicate(pair.first.url).replace("hosts =", "retention_s = 9_000_000\nhosts =")
    whole = settings_with(settings, tmp_path, config + route("upscale", "[{ replicate = 1 }]"))
    with pytest.raises(ConfigInvalid, match="9000000 s"):
        async with running_services(whole):
            raise AssertionError("it started")


async def test_a_provider_that_cannot_take_a_parameter_is_no_candidate(
    settings: Settings, tmp_path: Path, pair: Pair
) -> None:
    """`quality=best` is not in the first's template: the second, which has it, does the job."""
    second = replicate(pair.second.url, name="second").replace('"$scale:2"', '"$scale:2", quality = "$quality"')
    config = replicate(pair.first.url, name="first") + second + route("upscale", "[{ first = 1 }, { second = 1 }]")
    async with relaying(settings, tmp_path, config) as services:
        job = await ended(services, await sent(services, parameters={"scale": 2, "quality": "best"}))

        assert job.state is JobState.SUCCEEDED
        assert not pair.first.requests("order")

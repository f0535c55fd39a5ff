"""Health checks: a provider that would not take work is found out by a question, by one worker for all."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, ClassVar

import pytest

from broker.breaker import Breaker
from broker.circuits import CircuitState, Standing
from broker.log import capture_log
from broker.queue import connect
from providers.base import Exposure, Provider, Reporter, Snapshot, Takes, Task, Terms
from providers.failures import FailureKind, ProviderFailure
from providers.inline import Inline
from tests.lifecycle import eventually
from tests.stack import Servers
from workers import health
from workers.health import HealthChecks

MakeBreaker = Callable[[], Breaker]


class Ordered(Inline):
    """A provider outside of which nothing can be asked without an order."""

    terms: ClassVar[Terms] = Terms(takes=Takes.FILE, operations=frozenset({"upscale"}), exposure=Exposure.LOGGED)

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        raise AssertionError


class Asked(Ordered):
    """One that answers as it is told, and counts."""

    def __init__(self, failure: Exception | None = None, *, hangs: bool = False) -> None:
        self.failure = failure
        self.hangs = hangs
        self.times = 0

    async def healthy(self) -> None:
        self.times += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure


@pytest.fixture
async def process(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[MakeBreaker]:
    """Makes the breaker of one more process; turns and answers are short."""
    monkeypatch.setattr("broker.breaker.FRESH_S", 0.0)
    monkeypatch.setattr(health, "EVERY_S", 0.2)
    monkeypatch.setattr(health, "ANSWER_WITHIN_S", 0.1)
    clients: list[Any] = []

    def make() -> Breaker:
        clients.append(connect(servers.embedded.redis_url))
        return Breaker(clients[-1])

    yield make
    for client in clients:
        await client.aclose(close_connection_pool=True)


async def standing(breaker: Breaker) -> Standing:
    return (await breaker.standings(["fal"]))["fal"]


async def opens(breaker: Breaker, provider: Provider) -> None:
    """Check again and again until it is open."""
    checks = HealthChecks(breaker, lambda: {"fal": provider})

    async def is_open() -> bool:
        await checks.once()
        return (await standing(breaker)).state is CircuitState.OPEN

    await eventually(is_open)


async def test_a_provider_that_is_down_is_found_out(process: MakeBreaker) -> None:
    """Opened by two failed questions, in a row, before any order; a good answer closes."""
    breaker = process()
    provider = Asked(ProviderFailure(FailureKind.NETWORK))
    await opens(breaker, provider)
    assert provider.times == 2
    assert (await standing(breaker)).reason == "network"
    provider.failure = None
    checks = HealthChecks(breaker, lambda: {"fal": provider})

    async def is_closed() -> bool:
        await checks.once()
        return await standing(breaker) == Standing()

    await eventually(is_closed)


async def test_silence_is_a_failure(process: MakeBreaker) -> None:
    """No answer in time counts as one that is bad."""
    breaker = process()
    await opens(breaker, Asked(hangs=True))
    assert (await standing(breaker)).reason == "timeout"


async def test_refused_credentials_alarm_at_once(process: MakeBreaker) -> None:
    """One check is enough, and an operator is told which provider."""
    breaker = process()
    with capture_log() as lines:
        await HealthChecks(breaker, lambda: {"fal": Asked(ProviderFailure(FailureKind.AUTH))}).once()
    events = [json.loads(line) for line in lines]
    assert [(e["event"], e["provider"], e["code"]) for e in events if e["level"] == "error"] == [
        ("provider_tripped", "fal", "auth")
    ]


async def test_workers_take_turns(process: MakeBreaker) -> None:
    """Eight workers, one question for each turn; and a worker that is alone has every turn."""
    provider = Asked()
    workers = [HealthChecks(process(), lambda: {"fal": provider}) for _ in range(8)]
    await asyncio.gather(*(worker.once() for worker in workers))
    assert provider.times == 1
    lonely = asyncio.create_task(workers[0].run())

    async def is_asked_again() -> bool:
        return provider.times >= 4

    await eventually(is_asked_again)
    lonely.cancel()
    await asyncio.gather(lonely, return_exceptions=True)


async def test_a_provider_without_a_question_is_left_to_orders(process: MakeBreaker) -> None:
    """Nothing asked is not "all is well": what orders have opened stays open."""
    breaker = process()
    await breaker.report("fal", FailureKind.AUTH)
    await HealthChecks(breaker, lambda: {"fal": Ordered()}).once()
    assert (await standing(breaker)).state is CircuitState.OPEN


async def test_an_adapter_that_breaks_holds_up_no_other(process: MakeBreaker) -> None:
    """Its bug is logged, without its words; the others are checked, and nothing is said of it itself."""
    breaker, broken, other = process(), Asked(RuntimeError("secret words")), Asked()
    with capture_log() as lines:
        await HealthChecks(breaker, lambda: {"fal": broken, "bfl": other}).once()
    assert other.times == 1
    assert await standing(breaker) == Standing()
    (event,) = [json.loads(line) for line in lines]
    assert (event["event"], event["provider"], event["exception"]) == ("check_broke", "fal", "RuntimeError")


async def test_a_slow_provider_holds_up_no_other(process: MakeBreaker) -> None:
    """All are asked side by side."""
    breaker = process()
    slow = {f"slow{n}": Asked(hangs=True) for n in range(30)}
    async with asyncio.timeout(2):
        await HealthChecks(breaker, lambda: slow).once()
    assert all(provider.times == 1 for provider in slow.values())


async def test_a_new_configuration_is_followed(process: MakeBreaker) -> None:
    """Providers that come are asked, those that went are not."""
    before, after = Asked(), Asked()
    configured: dict[str, Provider] = {"fal": before}
    running = asyncio.create_task(HealthChecks(process(), lambda: configured).run())

    async def is_asked(provider: Asked) -> bool:
        return provider.times > 0

    await eventually(lambda: is_asked(before))
    configured = {"bfl": after}
    seen = before.times
    await eventually(lambda: is_asked(after))
    assert before.times == seen
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

"""What processes tell each other of providers' health: nothing is lost, one probes, and no Redis means no obstacle."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.breaker import Breaker
from broker.circuits import CircuitState, Standing
from broker.log import capture_log
from broker.queue import connect
from providers.failures import FailureKind
from tests.lifecycle import eventually
from tests.stack import Servers

MakeBreaker = Callable[[], Breaker]
KEY = "lethe:breaker:fal"


@pytest.fixture
async def redis(servers: Servers) -> AsyncGenerator[Any]:
    client = connect(servers.embedded.redis_url)
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.fixture
async def process(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[MakeBreaker]:
    """Makes the view of one more process, with connections of its own; what it has seen it looks at again at once."""
    monkeypatch.setattr("broker.breaker.FRESH_S", 0.0)
    clients: list[Any] = []

    def make() -> Breaker:
        clients.append(connect(servers.embedded.redis_url))
        return Breaker(clients[-1])

    yield make
    for client in clients:
        await client.aclose(close_connection_pool=True)


async def standing(breaker: Breaker, provider: str = "fal") -> Standing:
    return (await breaker.standings([provider]))[provider]


async def is_half_open(breaker: Breaker) -> bool:
    return (await standing(breaker)).state is CircuitState.HALF_OPEN


async def opened(*breakers: Breaker) -> None:
    """Open by failures, and wait until it is to be tried again."""
    await asyncio.gather(*(breakers[n % len(breakers)].report("fal", FailureKind.NETWORK) for n in range(5)))
    for breaker in breakers:
        await eventually(lambda asked=breaker: is_half_open(asked))


async def test_a_provider_nobody_spoke_of_takes_work(process: MakeBreaker) -> None:
    """Nothing in Redis is a closed circuit."""
    breaker = process()
    assert await breaker.standings(["fal", "bfl"]) == {"fal": Standing(), "bfl": Standing()}
    assert await breaker.standings([]) == {}
    assert await breaker.may_try("fal")


async def test_what_one_process_hears_all_know(process: MakeBreaker) -> None:
    """Opened by one, open for the other; and another provider is not touched."""
    one, other = process(), process()
    await one.report("fal", FailureKind.PAYMENT)
    seen = await other.standings(["fal", "bfl"])
    assert (seen["fal"].state, seen["fal"].reason) == (CircuitState.OPEN, "payment")
    assert 890 < seen["fal"].retry_in_s <= 900
    assert seen["bfl"] == Standing()
    assert not await other.may_try("fal")


async def test_no_outcome_is_lost(process: MakeBreaker, redis: Any) -> None:
    """Ninety outcomes told by six processes at once, in no order: every one is counted."""
    processes = [process() for _ in range(6)]
    kinds = [None, None, FailureKind.TIMEOUT] * 30
    await asyncio.gather(*(processes[n % 6].report("fal", kind) for n, kind in enumerate(kinds)))
    known = json.loads(await redis.get(KEY))
    assert sum(good for _, good, _ in known["tallies"]) == 60
    assert sum(bad for _, _, bad in known["tallies"]) == 30


async def test_failures_of_all_processes_make_one_row(process: MakeBreaker) -> None:
    """Five processes, one failure each."""
    processes = [process() for _ in range(5)]
    for breaker in processes:
        assert (await standing(processes[0])).state is CircuitState.CLOSED
        await breaker.report("fal", FailureKind.NETWORK)
    assert (await standing(processes[0])).state is CircuitState.OPEN


async def test_a_rate_limit_is_heard_with_its_end(process: MakeBreaker) -> None:
    """As long as the provider asked for, by Redis' clock."""
    breaker = process()
    await breaker.report("fal", FailureKind.RATE_LIMITED, after_s=20)
    assert 19 < (await standing(breaker)).retry_in_s <= 20


async def test_one_attempt_finds_out(process: MakeBreaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is over one of forty callers in four processes may try; its success closes for all."""
    monkeypatch.setattr("broker.circuits.OPEN_S", 0.2)
    processes = [process() for _ in range(4)]
    await opened(*processes)
    tried = await asyncio.gather(*(processes[n % 4].may_try("fal") for n in range(40)))
    assert tried.count(True) == 1
    await processes[0].report("fal", None)
    assert await standing(processes[1]) == Standing()
    assert all([await breaker.may_try("fal") for breaker in processes])


async def test_a_probe_that_fails_opens_for_longer(process: MakeBreaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next probe is free when that time is over."""
    monkeypatch.setattr("broker.circuits.OPEN_S", 0.2)
    one, other = process(), process()
    await opened(one, other)
    assert await one.may_try("fal")
    await one.report("fal", FailureKind.NETWORK)
    assert 0.2 < (await standing(other)).retry_in_s <= 0.4
    assert not await other.may_try("fal")
    await eventually(lambda: is_half_open(other))
    assert await other.may_try("fal")
    assert not await one.may_try("fal")


async def test_a_probe_that_says_nothing_is_over(process: MakeBreaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused picture is no answer to the question: the next caller may ask it."""
    monkeypatch.setattr("broker.circuits.OPEN_S", 0.1)
    one, other = process(), process()
    await opened(one, other)
    assert await one.may_try("fal")
    assert not await other.may_try("fal")
    await one.report("fal", FailureKind.CONTENT_REJECTED)
    assert await is_half_open(other)
    assert await other.may_try("fal")


async def test_a_probe_that_is_never_heard_of_again_ends(
    process: MakeBreaker, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process may have died: half a minute later the next one probes."""
    monkeypatch.setattr("broker.circuits.OPEN_S", 0.1)
    monkeypatch.setattr("broker.breaker.PROBE_S", 0.3)
    one, other = process(), process()
    await opened(one, other)
    assert await one.may_try("fal")
    assert not await other.may_try("fal")
    await eventually(lambda: other.may_try("fal"))


async def test_who_has_seen_it_half_open_looks_again(process: MakeBreaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that failed a moment ago is known before the next is sent."""
    monkeypatch.setattr("broker.circuits.OPEN_S", 0.2)
    one, other = process(), process()
    await opened(one, other)
    monkeypatch.setattr("broker.breaker.FRESH_S", 60.0)
    assert await is_half_open(other)
    await one.report("fal", FailureKind.NETWORK)
    assert not await other.may_try("fal")


async def test_what_is_seen_is_kept_for_a_moment(
    process: MakeBreaker, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Admission asks again and again, and Redis is not asked each time; what this process reports itself it knows."""
    breaker = process()
    monkeypatch.setattr("broker.breaker.FRESH_S", 60.0)
    await breaker.standings(["fal", "bfl"])
    asked = (await redis.info("commandstats"))["cmdstat_mget"]["calls"]
    for _ in range(50):
        await breaker.standings(["fal", "bfl"])
    assert (await redis.info("commandstats"))["cmdstat_mget"]["calls"] == asked
    await breaker.report("fal", FailureKind.AUTH)
    assert (await standing(breaker)).state is CircuitState.OPEN


async def test_one_process_checks(process: MakeBreaker) -> None:
    """Of ten at once, one; and again when its time is over."""
    processes = [process() for _ in range(10)]
    turns = await asyncio.gather(*(breaker.may_check("fal", within_s=0.2) for breaker in processes))
    assert turns.count(True) == 1
    assert await processes[0].may_check("bfl", within_s=0.2)
    await eventually(lambda: processes[3].may_check("fal", within_s=0.2))


async def test_checks_of_two_processes_are_in_a_row(process: MakeBreaker) -> None:
    """Whoever has the turn: the second failed check opens, a good one closes."""
    one, other = process(), process()
    await one.checked("fal", FailureKind.NETWORK)
    assert (await standing(other)).state is CircuitState.CLOSED
    await other.checked("fal", FailureKind.NETWORK)
    assert (await standing(one)).state is CircuitState.OPEN
    await one.checked("fal", None)
    assert await standing(other) == Standing()


async def test_what_an_operator_has_to_mend_is_told_once(process: MakeBreaker) -> None:
    """Refused credentials: one error naming provider and reason, however many attempts run into it."""
    processes = [process() for _ in range(3)]
    with capture_log() as lines:
        await asyncio.gather(*(processes[n % 3].report("fal", FailureKind.AUTH) for n in range(12)))
        await processes[0].checked("fal", None)
    events = [json.loads(line) for line in lines]
    assert [(e["event"], e["level"], e["provider"], e.get("code")) for e in events] == [
        ("provider_tripped", "error", "fal", "auth"),
        ("provider_closed", "info", "fal", None),
    ]


async def test_an_opening_is_told_once(process: MakeBreaker) -> None:
    """One warning, not one for each failure that follows."""
    processes = [process() for _ in range(3)]
    with capture_log() as lines:
        await asyncio.gather(*(processes[n % 3].report("fal", FailureKind.NETWORK) for n in range(30)))
    (event,) = [json.loads(line) for line in lines]
    assert (event["event"], event["provider"], event["code"]) == ("provider_opened", "fal", "network")


async def test_an_emptied_redis_begins_anew(process: MakeBreaker, redis: Any) -> None:
    """FLUSHALL and SCRIPT FLUSH: closed, and counting again."""
    breaker = process()
    await breaker.report("fal", FailureKind.AUTH)
    await redis.flushall()
    await redis.script_flush()
    assert await standing(breaker) == Standing()
    await breaker.report("fal", FailureKind.PAYMENT)
    assert (await standing(breaker)).reason == "payment"


@pytest.mark.parametrize("nonsense", [b"", b"\xff", b"[]", b'{"until_s": "x"}', b'{"reason": "sunspots"}'])
async def test_nonsense_in_redis_is_replaced(process: MakeBreaker, redis: Any, nonsense: bytes) -> None:
    """What cannot be read, by another release perhaps, is a closed circuit, and does not stop the count."""
    breaker = process()
    await redis.set(KEY, nonsense, ex=60)
    assert await standing(breaker) == Standing()
    await breaker.report("fal", FailureKind.AUTH)
    assert (await standing(breaker)).state is CircuitState.OPEN


async def test_a_redis_that_is_away_is_no_obstacle(tmp_path: Path) -> None:
    """Everything closed, everything may be tried, nothing is checked, nothing raises; said once."""
    client = connect(f"unix://{tmp_path}/nobody.sock")
    breaker = Breaker(client)
    with capture_log() as lines:
        await asyncio.gather(*(breaker.report("fal", FailureKind.AUTH) for _ in range(20)))
        assert await breaker.standings(["fal"]) == {"fal": Standing()}
        assert await breaker.may_try("fal")
        assert not await breaker.may_check("fal", within_s=30)
    assert len([line for line in lines if "breaker_unavailable" in line]) == 1
    assert len(lines) == 1
    await client.aclose(close_connection_pool=True)


async def test_a_redis_that_hangs_holds_no_attempt_up(tmp_path: Path) -> None:
    """A thousand outcomes at once wait about a second for it, all together."""

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(silence, tmp_path / "redis.sock")
    client = connect(f"unix://{tmp_path}/redis.sock")
    breaker = Breaker(client)
    async with asyncio.timeout(4):
        await asyncio.gather(*(breaker.report("fal", FailureKind.NETWORK) for _ in range(1000)))
    await client.aclose(close_connection_pool=True)
    server.close()


async def test_what_is_remembered_ends(process: MakeBreaker, redis: Any) -> None:
    """A provider that nobody uses any more leaves nothing behind for long."""
    breaker = process()
    await breaker.report("fal", None)
    assert 0 < await redis.ttl(KEY) <= 900
    await breaker.report("fal", FailureKind.AUTH)
    assert 900 < await redis.ttl(KEY) <= 1800

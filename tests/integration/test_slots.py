"""Slots at a provider: counted for all processes together, let go of by themselves, and no obstacle without Redis."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from broker.log import capture_log
from broker.queue import connect
from broker.slots import Slots
from broker.store.redis_link import AGAIN_S
from tests.lifecycle import eventually
from tests.stack import Servers

MakeSlots = Callable[[], Slots]


@pytest.fixture
async def process(servers: Servers) -> AsyncGenerator[MakeSlots]:
    """Makes the view of one more process, with connections of its own."""
    clients: list[Any] = []

    def make() -> Slots:
        clients.append(connect(servers.embedded.redis_url))
        return Slots(clients[-1])

    yield make
    for client in clients:
        await client.aclose(close_connection_pool=True)


async def in_use(slots: Slots, provider: str) -> int:
    """How many slots of one provider are taken."""
    return (await slots.in_use([provider]))[provider]


async def test_no_more_attempts_than_slots(process: MakeSlots) -> None:
    """Forty attempts of four processes at once at a provider with seven slots: seven get one."""
    processes = [process() for _ in range(4)]
    taken = await asyncio.gather(*(processes[n % 4].acquire("fal", uuid4(), limit=7) for n in range(40)))
    assert taken.count(True) == 7
    assert {await in_use(slots, "fal") for slots in processes} == {7}


async def test_providers_do_not_share_slots(process: MakeSlots) -> None:
    """A full provider says nothing about another."""
    slots = process()
    assert await slots.acquire("fal", uuid4(), limit=1)
    assert not await slots.acquire("fal", uuid4(), limit=1)
    assert await slots.acquire("bfl", uuid4(), limit=1)
    assert await slots.in_use(["fal", "bfl", "runway"]) == {"fal": 1, "bfl": 1, "runway": 0}
    assert await slots.in_use([]) == {}


async def test_a_released_slot_is_free_in_every_process(process: MakeSlots) -> None:
    """Releasing twice, or what was never taken, changes nothing."""
    one, other = process(), process()
    attempt = uuid4()
    assert await one.acquire("fal", attempt, limit=1)
    for _ in range(2):
        await one.release("fal", attempt)
        await one.release("fal", uuid4())
    assert await other.acquire("fal", uuid4(), limit=1)
    assert await in_use(one, "fal") == 1


async def test_an_attempt_has_one_slot_only(process: MakeSlots) -> None:
    """Asking again keeps it, also where all are taken."""
    slots = process()
    attempt = uuid4()
    assert all([await slots.acquire("fal", attempt, limit=1) for _ in range(3)])
    assert await in_use(slots, "fal") == 1


async def test_the_slots_of_a_dead_process_become_free(process: MakeSlots) -> None:
    """Nobody renews them: they end by themselves, on Redis' clock; what is renewed stays."""
    dead, living = process(), process()
    kept = uuid4()
    assert await dead.acquire("fal", uuid4(), limit=2, lifetime_s=0.2)
    assert await living.acquire("fal", kept, limit=2, lifetime_s=0.2)
    await living.renew("fal", [kept])
    assert not await living.acquire("fal", uuid4(), limit=2)

    async def has_room() -> bool:
        return await living.acquire("fal", uuid4(), limit=2)

    await eventually(has_room)
    assert await in_use(living, "fal") == 2


async def test_a_short_slot_does_not_shorten_a_long_one(process: MakeSlots) -> None:
    """The whole set lives as long as its longest slot."""
    slots = process()
    assert await slots.acquire("fal", uuid4(), limit=2, lifetime_s=30)
    assert await slots.acquire("fal", uuid4(), limit=2, lifetime_s=0.05)

    async def is_one() -> bool:
        return await in_use(slots, "fal") == 1

    await eventually(is_one)


async def test_an_emptied_redis_heals(process: MakeSlots, servers: Servers) -> None:
    """FLUSHALL: the next renewal counts what runs again, even past the limit, and nobody gets in before it is true."""
    slots = process()
    ours = [uuid4() for _ in range(3)]
    for attempt in ours:
        assert await slots.acquire("fal", attempt, limit=3)
    redis = connect(servers.embedded.redis_url)
    client: Any = redis
    await client.flushall()
    await client.script_flush()
    stranger = uuid4()
    assert await slots.acquire("fal", stranger, limit=3)  # nobody can know before the renewal
    await slots.renew("fal", ours)
    assert await in_use(slots, "fal") == 4
    assert not await slots.acquire("fal", uuid4(), limit=3)
    await redis.aclose(close_connection_pool=True)


async def test_without_a_limit_everybody_gets_in(process: MakeSlots) -> None:
    """0 is no limit, and is counted all the same."""
    slots = process()
    assert all(await asyncio.gather(*(slots.acquire("inhouse", uuid4(), limit=0) for _ in range(50))))
    assert await in_use(slots, "inhouse") == 50
    await slots.renew("inhouse", [])


async def test_a_redis_that_is_away_is_no_obstacle(tmp_path: Path) -> None:
    """Everybody gets in, nothing raises, and the outage is said once however many ask."""
    redis = connect(f"unix://{tmp_path}/nobody.sock")
    slots = Slots(redis)
    with capture_log() as lines:
        assert all(await asyncio.gather(*(slots.acquire("fal", uuid4(), limit=1) for _ in range(20))))
        await slots.renew("fal", [uuid4()])
        await slots.release("fal", uuid4())
        assert await in_use(slots, "fal") == 0
    assert len([line for line in lines if "slots_unavailable" in line]) == 1
    await redis.aclose(close_connection_pool=True)


async def test_a_redis_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    """It takes connections and answers nothing: a hundred attempts one after the other wait once, not each."""

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(silence, tmp_path / "redis.sock")
    redis = connect(f"unix://{tmp_path}/redis.sock")
    slots = Slots(redis)
    async with asyncio.timeout(AGAIN_S + 2):
        for _ in range(100):
            assert await slots.acquire("fal", uuid4(), limit=1)
    await redis.aclose(close_connection_pool=True)
    server.close()


async def test_redis_is_used_again_when_it_is_back(
    process: MakeSlots, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit holds again within a second, and each outage is said once."""
    monkeypatch.setattr("broker.store.redis_link.AGAIN_S", 0.05)
    path = tmp_path / "redis.sock"
    client: Any = connect(f"unix://{path}")
    slots = Slots(client)

    async def holds() -> bool:
        return not await slots.acquire("fal", uuid4(), limit=1)

    with capture_log() as lines:
        for outages in (1, 2, 3):
            assert await slots.acquire("fal", uuid4(), limit=1)
            assert len([line for line in lines if "slots_unavailable" in line]) == outages
            path.symlink_to(servers.embedded.redis_url.removeprefix("unix://"))
            await eventually(holds)
            path.unlink()
            await client.connection_pool.disconnect()
    await client.aclose(close_connection_pool=True)

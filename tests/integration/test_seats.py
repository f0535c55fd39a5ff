"""Places at a provider: as many as it takes, in the order of coming, and Redis hears only of who is next."""

import asyncio
from uuid import UUID, uuid4

import pytest

from broker.services import Services
from broker.slots import Slots
from workers import seats
from workers.seats import Seats


class CountingSlots(Slots):
    """Counts how often it is asked for a place."""

    asked = 0

    async def acquire(self, provider: str, attempt_id: UUID, *, limit: int, lifetime_s: float = 30.0) -> bool:
        self.asked += 1
        return await super().acquire(provider, attempt_id, limit=limit, lifetime_s=lifetime_s)


async def test_a_long_line_asks_redis_one_by_one(services: Services) -> None:
    """Two hundred wait for two places: all of them get one, and Redis is not asked by all of them all the time."""
    slots = CountingSlots(services.redis)
    places = Seats(slots)
    together = most = 0

    async def sit() -> bool:
        nonlocal together, most
        async with places.taken("desk", uuid4(), limit=2) as is_seated:
            together += is_seated
            most = max(most, together)
            await asyncio.sleep(0.005)
            together -= is_seated
        return is_seated

    seated = await asyncio.gather(*(sit() for _ in range(200)))

    assert most <= 2
    assert all(seated)
    assert slots.asked < 3 * 200


async def test_who_finds_no_place_is_told_so_and_leaves_none(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while the job goes back to its queue; when the place is free again, the next one has it."""
    monkeypatch.setattr(seats, "WAIT_S", 0.2)
    places = Seats(services.slots)
    async with places.taken("desk", uuid4(), limit=1) as first:
        assert first
        async with places.taken("desk", uuid4(), limit=1) as second:
            assert not second
    async with places.taken("desk", uuid4(), limit=1) as third:
        assert third
    assert await services.slots.in_use("desk") == 0


async def test_an_order_that_runs_has_its_place_whatever_the_limit(services: Services) -> None:
    """A limit of 0 waits for nobody."""
    places = Seats(services.slots)
    async with places.taken("desk", uuid4(), limit=1), places.taken("desk", uuid4(), limit=0) as is_seated:
        assert is_seated

"""The lease of a process: what it may hold and until when, as its guard sees it."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import suppress

import asyncpg
import pytest

from broker.errors import StoreUnavailable
from broker.guard import Guard, GuardGone
from broker.lease import KILL_MARGIN_S, Lease
from broker.settings import Settings
from broker.store.processes import Facts, Process, ProcessStore
from tests.lifecycle import count, eventually, run_sql
from tests.rows import Rows, open_rows
from tests.stack import PipeGuard

LEASE_S = 3.0


class FailingProcesses(ProcessStore):
    """A table that cannot be reached, or does not answer, when a test says so."""

    is_away = False
    is_silent = False

    async def renew(self, process: Process, *, lease_s: float) -> bool:
        if self.is_away:
            raise StoreUnavailable
        if self.is_silent:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(LEASE_S)
            await asyncio.sleep(LEASE_S)  # as a connection that waits for its cancel to be answered
        return await super().renew(process, lease_s=lease_s)


@pytest.fixture
async def rows(settings: Settings) -> AsyncGenerator[Rows]:
    async with open_rows(settings) as rows:
        yield rows


class Leased:
    """A lease whose guard's deadlines can be read."""

    def __init__(self, rows: Rows) -> None:
        self.pipe = PipeGuard()
        self.processes = FailingProcesses(rows.stores.database)
        self.lease = Lease(self.processes, self.pipe.guard, role="worker", lease_s=LEASE_S, facts=Facts())


@pytest.fixture
async def leased(rows: Rows) -> AsyncGenerator[Leased]:
    made = Leased(rows)
    await made.lease.open()
    running = asyncio.create_task(made.lease.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    made.pipe.close()


def boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def test_the_guard_is_armed_while_something_is_held(leased: Leased) -> None:
    """Armed a second before the lease ends, and disarmed when the last hold is over."""
    assert leased.pipe.deadlines() == []
    with leased.lease.hold():
        (deadline_ns,) = leased.pipe.deadlines()
        assert 0 < deadline_ns / 1e9 - boottime_s() <= LEASE_S - KILL_MARGIN_S
        with leased.lease.hold():
            pass
        assert 0 not in leased.pipe.deadlines()
    assert leased.pipe.deadlines() == [0]


class DeafGuard(Guard):
    """A guard that does not hear one deadline."""

    has_heard = False

    def arm(self, deadline_boottime_ns: int) -> None:
        if not self.has_heard:
            self.has_heard = True
            raise GuardGone
        super().arm(deadline_boottime_ns)


async def test_nothing_is_held_under_a_guard_that_did_not_hear(rows: Rows) -> None:
    """A deadline that did not arrive refuses the hold, and counts for no later one."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    guard = DeafGuard(writing)
    lease = Lease(ProcessStore(rows.stores.database), guard, role="worker", lease_s=LEASE_S, facts=Facts())
    await lease.open()
    try:
        with pytest.raises(GuardGone), lease.hold():
            pytest.fail("held without a deadline")
        with lease.hold():
            assert int.from_bytes(os.read(reading, 8), "little") > 0
        assert os.read(reading, 64) == bytes(8)
    finally:
        guard.close()
        os.close(reading)


async def test_each_renewal_moves_the_deadline(leased: Leased) -> None:
    """What is held longer than a lease is held under later deadlines."""
    deadlines: list[int] = []

    async def two_more() -> bool:
        deadlines.extend(leased.pipe.deadlines())
        return len(deadlines) >= 3

    with leased.lease.hold():
        await eventually(two_more)
    assert deadlines == sorted(set(deadlines))


async def test_the_lease_never_looks_longer_here_than_in_postgres(leased: Leased, settings: Settings) -> None:
    """By whatever clock: when we call it ended, nobody has done so before."""
    with leased.lease.hold():
        deadline_s = leased.pipe.deadlines()[-1] / 1e9
        left_there_s = await _left_s(leased, settings)
        left_here_s = deadline_s + KILL_MARGIN_S - boottime_s()  # asked later, so that it can only look shorter
        assert left_here_s <= left_there_s


async def _left_s(leased: Leased, settings: Settings) -> float:
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        asked = "SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 FROM processes WHERE id = $1"
        return await connection.fetchval(asked, leased.lease.process.id)
    finally:
        await connection.close()


@pytest.mark.parametrize("how", ["is_away", "is_silent"])
async def test_what_cannot_be_renewed_is_let_go_before_the_guard_kills(leased: Leased, how: str) -> None:
    """Half a second before the deadline the holder is told, whatever renewing waits for; nothing new may be held."""
    told: asyncio.Event = asyncio.Event()

    async def let_go() -> None:
        told.set()

    leased.lease.let_go = let_go
    with leased.lease.hold():
        setattr(leased.processes, how, True)
        async with asyncio.timeout(LEASE_S):
            await told.wait()
        assert boottime_s() < leased.pipe.deadlines()[-1] / 1e9
        assert not leased.lease.is_valid
        with pytest.raises(StoreUnavailable), leased.lease.hold():
            pass


async def test_a_lost_lease_starts_over_under_another_id(leased: Leased, settings: Settings) -> None:
    """An id whose lease has ended is never used again; until then nothing is held."""
    former = leased.lease.process.id
    await run_sql(settings, "UPDATE processes SET lease_until = now() WHERE id = $1", former)

    async def has_another() -> bool:
        return leased.lease.process.id != former

    await eventually(has_another)
    with leased.lease.hold():
        pass
    assert await count(settings, "processes", "lease_until > now()") == 1


async def test_a_lost_lease_does_not_start_over_while_something_is_held(leased: Leased, settings: Settings) -> None:
    """Whoever holds under an ended lease is let go or killed, never given a new name."""
    former, told = leased.lease.process.id, asyncio.Event()

    async def let_go() -> None:
        told.set()

    leased.lease.let_go = let_go
    with leased.lease.hold():
        await run_sql(settings, "UPDATE processes SET lease_until = now() WHERE id = $1", former)
        async with asyncio.timeout(LEASE_S):
            await told.wait()
        assert leased.lease.process.id == former


async def test_a_failing_reconciliation_does_not_end_the_lease(leased: Leased) -> None:
    """What is done at each renewal may fail, or hang; the lease goes on."""
    calls = 0

    async def renewed() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreUnavailable
        await asyncio.Event().wait()

    leased.lease.renewed = renewed

    async def three_times() -> bool:
        return calls >= 3

    await eventually(three_times)
    assert leased.lease.is_valid


async def test_leaving_ends_the_lease_only_when_nothing_is_held(leased: Leased, settings: Settings) -> None:
    """A process that ends with something in its hands leaves its row, so that others wait for its death."""
    with leased.lease.hold():
        await leased.lease.aclose()
        assert await count(settings, "processes") == 1
    await leased.lease.aclose()
    assert await count(settings, "processes") == 0


async def test_others_read_what_a_process_tells(leased: Leased, rows: Rows) -> None:
    """Facts that changed travel with the next renewal."""
    leased.lease.tell(address="http://127.0.0.1:1")

    async def is_told() -> bool:
        return any(process.facts.address for process in await rows.stores.processes.alive())

    await eventually(is_told)

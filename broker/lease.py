"""This process's lease: while it is renewed it may hold uploads; before it ends the guard kills what still does."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from uuid import uuid4

import msgspec
import structlog

from broker.errors import BrokerError, StoreUnavailable
from broker.guard import Guard
from broker.posture import Fact
from broker.store.processes import Facts, Process, ProcessStore

log = structlog.get_logger()

KILL_MARGIN_S = 1.0
LET_GO_S = 0.5


class Lease:
    """
    Renews every third of the lease, sooner again where that failed, and arms the guard while anything is held.

    Time is CLOCK_BOOTTIME, taken before each renewal is sent: the lease never looks longer here than in Postgres.
    When it cannot be renewed, `let_go` is called half a second before the guard would kill.
    """

    def __init__(self, processes: ProcessStore, guard: Guard, *, role: str, lease_s: float, facts: Facts) -> None:
        self._processes = processes
        self._guard = guard
        self._lease_s = lease_s
        self._ends_s = 0.0
        self._held = 0
        self._armed_ns = 0
        self.process = Process(id=uuid4(), role=role, facts=facts)
        self.renewed: Callable[[], Awaitable[None]] | None = None
        self.let_go: Callable[[], Awaitable[None]] | None = None

    @property
    def is_valid(self) -> bool:
        """Whether something new may be held."""
        return _boottime_s() < self._ends_s - KILL_MARGIN_S - LET_GO_S

    def tell(self, **facts: str | tuple[str, ...] | tuple[Fact, ...]) -> None:
        """Change what this process says about itself; the others read it after the next renewal."""
        changed = msgspec.structs.replace(self.process.facts, **facts)
        self.process = msgspec.structs.replace(self.process, facts=changed)

    @contextmanager
    def hold(self) -> Generator[None, None, None]:
        """Hold a key or plaintext inside the block; raise StoreUnavailable when the lease is not safe."""
        if not self.is_valid:
            raise StoreUnavailable("this process has no lease")
        self._held += 1
        try:
            self._arm()
            yield
        finally:
            self._held -= 1
            self._arm()

    async def open(self) -> None:
        """Take the first lease."""
        await self._register()

    async def run(self) -> None:
        """Renew until cancelled, and let go in time where that does not come about."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew_in_time())
            tasks.create_task(self._let_go_in_time())

    async def _renew_in_time(self) -> None:
        pause_s = self._lease_s / 3
        while True:
            await asyncio.sleep(pause_s)
            is_renewed = await self._renew()
            pause_s = self._lease_s / (3 if is_renewed else 12)
            if is_renewed and self.renewed is not None:
                await self._tell_renewed(self.renewed)

    async def _let_go_in_time(self) -> None:
        # By the clock alone: a Postgres that is silent may keep a renewal waiting for longer than the lease.
        while True:
            left_s = self._ends_s - KILL_MARGIN_S - LET_GO_S - _boottime_s()
            await asyncio.sleep(max(0.05, left_s))
            if not self.is_valid and self._held and self.let_go is not None:
                log.warning("lease_unsafe", count=self._held)
                await self.let_go()

    async def aclose(self) -> None:
        """End the lease, unless something is held after all: then it ends by itself."""
        if not self._held:
            with suppress(StoreUnavailable):
                await self._processes.leave(self.process.id)

    async def _register(self) -> None:
        before_s = _boottime_s()
        await self._processes.register(self.process, lease_s=self._lease_s)
        self._ends_s = before_s + self._lease_s

    async def _renew(self) -> bool:
        before_s = _boottime_s()
        try:
            async with asyncio.timeout(self._lease_s / 3):
                renewed = await self._processes.renew(self.process, lease_s=self._lease_s)
                if renewed:
                    self._ends_s = before_s + self._lease_s
                    self._arm()
                elif not self._held:
                    await self._start_over()
        except (StoreUnavailable, TimeoutError):
            log.warning("lease_not_renewed")
            return False
        return renewed

    async def _tell_renewed(self, renewed: Callable[[], Awaitable[None]]) -> None:
        # Short of what is left until the next renewal is due, whatever this does.
        try:
            async with asyncio.timeout(self._lease_s / 6):
                await renewed()
        except (BrokerError, TimeoutError) as exc:
            log.warning("not_reconciled", code=getattr(exc, "code", "timeout"))

    async def _start_over(self) -> None:
        # The lease ended while nothing was held: the old id is never used again.
        self.process = Process(id=uuid4(), role=self.process.role, facts=self.process.facts)
        await self._register()
        log.info("lease_restarted", worker_id=str(self.process.id))

    def _arm(self) -> None:
        deadline_ns = int((self._ends_s - KILL_MARGIN_S) * 1e9) if self._held else 0
        if deadline_ns == self._armed_ns:
            return
        if deadline_ns:
            self._guard.arm(deadline_ns)
        else:
            self._guard.disarm()
        # Only now: a guard that did not hear it is told again, or nothing is held.
        self._armed_ns = deadline_ns


def _boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)

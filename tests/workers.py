"""Real workers for tests of the lifecycle, whose model waits until the test lets it go on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from broker.services import Services
from broker.settings import Settings
from tests.lifecycle import eventually
from tests.processes import LetheProcess, lethe_process


class SlowWorker:
    """One worker process and the gate at which its model waits."""

    def __init__(self, process: LetheProcess, gate: Path) -> None:
        self.process = process
        self._gate = gate

    def open_gate(self) -> None:
        self._gate.touch()

    @property
    def runs(self) -> int:
        """How often a model has begun."""
        return len(list(self._gate.parent.glob("started-*")))

    async def has_begun(self, runs: int) -> None:
        async def begun() -> bool:
            assert self.process.running.poll() is None or runs > 1, self.process.log
            return self.runs >= runs

        await eventually(begun, within_s=20)


@asynccontextmanager
async def slow_worker(services: Services, settings: Settings, folder: Path) -> AsyncGenerator[SlowWorker]:
    """Start one and wait until the others see it."""
    gate = folder / "gate" / "open"
    gate.parent.mkdir(exist_ok=True)
    before = await _alive(services)
    with lethe_process(["tests.slow_worker"], settings, folder, LETHE_TEST_GATE=str(gate)) as process:
        await eventually(lambda: _more_than(services, before, process), within_s=20)
        try:
            yield SlowWorker(process, gate)
        finally:
            # A worker that waits at the gate would take all its time to drain.
            gate.touch()
            await asyncio.sleep(0)


async def _alive(services: Services) -> int:
    return len([p for p in await services.stores.processes.alive() if p.facts.pool == "gpu"])


async def _more_than(services: Services, before: int, process: LetheProcess) -> bool:
    assert process.running.poll() is None, process.log
    return await _alive(services) > before

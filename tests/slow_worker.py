"""A worker whose models wait for a file: `python -m broker.guard python -m tests.slow_worker gpu`.

LETHE_TEST_GATE names the file; beside it a model writes one `started-…` file per run. Where the file has content, the
model of pictures fails.
"""

import asyncio
import os
from pathlib import Path

from broker.guard import Guard
from broker.log import configure_log, report_crashes
from broker.secret_memory import harden
from broker.settings import load_settings
from policies.registry import load_profile
from providers.base import Reporter, Snapshot, Task
from providers.failures import FailureKind, ProviderFailure
from workers import main
from workers.models.frames import frame, only_pixels
from workers.models.noop import Noop
from workers.models.restyle import Pencil

GATE = Path(os.environ["LETHE_TEST_GATE"])


class SlowNoop(Noop):
    """Says that it has begun, and goes on when the gate is there."""

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        await _wait(task)
        return await super().submit(task, reporter)


class SlowPencil(Pencil):
    """Looks at its picture, says that it has begun, and goes on when the gate is there."""

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        rows = frame(only_pixels(task, self.terms))
        assert rows.any()
        try:
            await _wait(task)
        finally:
            del rows
        if GATE.read_bytes():
            raise ProviderFailure(FailureKind.INVALID_INPUT, "gate")
        return await super().submit(task, reporter)


async def _wait(task: Task) -> None:
    GATE.with_name(f"started-{task.attempt}").touch()
    while not GATE.exists():  # noqa: ASYNC110 - another process makes the file
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    harden()
    configure_log()
    report_crashes()
    guard = Guard.from_environment()
    settings = load_settings()
    main.DRAIN_S = 1.5
    main.models_of = lambda pool, config, settings: {"noop": SlowNoop(), "pencil": SlowPencil()}
    asyncio.run(main.work(settings, "gpu", guard=guard, profile=load_profile(settings.profile)))

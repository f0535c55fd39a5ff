"""A worker whose no-op model waits for a file: `python -m broker.guard python -m tests.slow_worker gpu`.

LETHE_TEST_GATE names the file; beside it the model writes one `started-…` file per run.
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
from workers import main
from workers.models.noop import Noop

GATE = Path(os.environ["LETHE_TEST_GATE"])


class SlowNoop(Noop):
    """Says that it has begun, and goes on when the gate is there."""

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        GATE.with_name(f"started-{task.attempt}").touch()
        while not GATE.exists():  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(0.02)
        return await super().submit(task, reporter)


if __name__ == "__main__":
    harden()
    configure_log()
    report_crashes()
    guard = Guard.from_environment()
    settings = load_settings()
    main.DRAIN_S = 1.5
    main.models_of = lambda pool, config, settings: {"noop": SlowNoop()}
    asyncio.run(main.work(settings, "gpu", guard=guard, profile=load_profile(settings.profile)))

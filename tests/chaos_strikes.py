"""What hits a deployment in the soak: kill -9 and SIGSTOP for every kind of process that it consists of."""

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from broker.forensics.processes import descendants

PARTS = {
    "worker guard": ("broker.guard", "workers"),
    "broker guard": ("broker.guard", "-m\0broker"),
    "nursery": ("workers.images.nursery",),
    "keyholder": ("broker.keyholder",),
    "worker": ("-m\0workers\0",),
    "broker": ("-m\0broker\0",),
    "backend": ("postgres: ", "[local]"),
    "postgres": ("/postgres\0-D",),
    "redis": ("redis-server",),
}
PAUSED_S = 4.5
"""Longer than the lease of three seconds."""


def parts_of(pid: int) -> dict[str, list[int]]:
    """The processes below one, by what they are."""
    found: dict[str, list[int]] = {name: [] for name in PARTS}
    for child in sorted(descendants(pid)):
        with suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace") + "\0"
            name = next((name for name, words in PARTS.items() if all(word in command for word in words)), None)
            if name:
                found[name].append(child)
    return found


class Strikes:
    """One blow after another, in an order that the seed tells."""

    def __init__(self, pid: int, *, seed: int) -> None:
        self._pid = pid
        self._random = random.Random(seed)
        self.done: list[str] = []
        self.struck_s: list[float] = []

    async def run(self, plan: list[tuple[str, signal.Signals]], *, every_s: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            for name, signum in plan:
                await asyncio.sleep(every_s * self._random.uniform(0.6, 1.4))
                tasks.create_task(self._strike(name, signum))

    def plan(self, count: int) -> list[tuple[str, signal.Signals]]:
        """Every blow once, then as many more as are wanted, shuffled."""
        blows = [(name, signal.SIGKILL) for name in PARTS]
        blows += [(name, signal.SIGSTOP) for name in PARTS if name != "backend"]
        drawn = self._random.sample(blows, len(blows)) + self._random.choices(blows, k=count)
        return drawn[:count]

    async def _strike(self, name: str, signum: signal.Signals) -> None:
        pids = parts_of(self._pid)[name]
        if not pids:
            self.done.append(f"{name}: none there")
            return
        pid = self._random.choice(pids)
        self.done.append(f"{signum.name} {name} {pid}")
        self.struck_s.append(time.monotonic())
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
            if signum is signal.SIGSTOP:
                await asyncio.sleep(PAUSED_S)
                os.kill(pid, signal.SIGCONT)  # where it was killed meanwhile, its number has not come round again

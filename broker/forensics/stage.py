"""The stack that is looked into: a whole one of its own, started here, struck, started again, and gone at the end."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from broker.children import ChildDied, StackError, until
from broker.config import DEFAULT_FILE
from broker.forensics.provider import CONFIG, HeldProvider
from broker.store.database import Database
from broker.store.processes import ProcessStore
from broker.up import Stack
from policies.registry import PROFILES

_BACK_WITHIN_S: Final = 60.0
_CHANGES: Final = {"exposure": '"logged"', "users_per_prefix_per_10_min": "10_000"}
"""What differs from the profile: the provider of this run may see a picture, and there is a user for each job."""


class Stage:
    """One embedded stack, and whoever restarts what dies in it."""

    def __init__(self, directory: Path, *, settings: Mapping[str, str], report: Callable[[str], None]) -> None:
        self.directory = directory
        self._settings = settings
        self._report = report
        self._port = 0
        self._exits = AsyncExitStack()
        self._stopping = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self.stack: Stack

    async def start(self) -> None:
        """Start everything, and go on restarting what dies."""
        async with AsyncExitStack() as exits:
            stack = Stack(self.directory, report=self._report, given=self._settings, port=self._port)
            self.stack = await exits.enter_async_context(stack)
            self._stopping = asyncio.Event()
            self._watching = asyncio.create_task(self.stack.watch(self._stopping))
            self._exits = exits.pop_all()
        self._port = int(self.stack.url.rpartition(":")[2])  # phones find it where it was

    async def stop(self) -> None:
        """Stop everything."""
        self._stopping.set()
        if self._watching is not None:
            with suppress(ChildDied):
                await self._watching
        await self._exits.aclose()

    async def kill(self, name: str) -> None:
        """Kill -9 a part, its guarded process where it has a guard, and wait until it is back."""
        pid = self.stack.pids[name]
        os.kill(_guarded(pid) or pid, signal.SIGKILL)
        if not await until(lambda: self.stack.pids[name] != pid, timeout_s=_BACK_WITHIN_S):
            raise StackError(f"{name} was killed and did not come back")

    async def lose_redis(self) -> None:
        """Kill -9 Redis, with which the stack ends, and start it again on the same directory."""
        os.kill(self.stack.pids["redis"], signal.SIGKILL)
        await self.stop()
        await self.start()

    async def metrics_urls(self) -> list[str]:
        """Say where live processes show their figures."""
        async with self.database() as database:
            return [p.facts.operator_address for p in await ProcessStore(database).alive() if p.facts.operator_address]

    @asynccontextmanager
    async def database(self) -> AsyncGenerator[Database]:
        """Ask the stack's own database, past the broker."""
        database = Database(self.stack.settings.postgres_dsn, connections=1)
        await database.open()
        try:
            yield database
        finally:
            await database.aclose()


def settings_for(directory: Path, provider: HeldProvider, *, profile: str, in_house: bool) -> dict[str, str]:
    """Write the lethe.toml and the profile of a run."""
    config, allowed = directory / "lethe.toml", directory / "profile.toml"
    shipped = DEFAULT_FILE.read_text() if in_house else ""
    config.write_text(shipped + "\n" + CONFIG.replace("$URL", provider.url))
    text = (PROFILES / f"{profile}.toml").read_text()
    for name, value in _CHANGES.items():
        text = re.sub(rf"^{name} = \S+", f"{name} = {value}", text, flags=re.MULTILINE)
    allowed.write_text(text)
    return {
        "LETHE_CONFIG_FILE": str(config),
        "LETHE_PROFILE": str(allowed),
        "LETHE_UPLOAD_IDLE_S": "600",  # half an upload has to be there still when everything has been looked at
        "LETHE_LEASE_S": "3",  # what is killed is made up for when its lease has ended: it is waited for four times
    }


def _guarded(pid: int) -> int | None:
    """Return the process that a guard guards; None where this is no guard."""
    if b"broker.guard" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        return None
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None

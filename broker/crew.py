"""The workers of the one-machine stack: one for each pool that a route leads to, even if a later lethe.toml adds it."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from broker.children import ChildDied, StackError
from broker.config import DEFAULT_FILE, load_config
from broker.pools import closed, pools
from broker.reload import LOOK_EVERY_S, stamp_of
from broker.settings import Settings
from broker.store.database import Database
from broker.store.processes import ProcessStore
from broker.supervisor import Service, Supervisor
from policies.registry import load_profile
from policies.toml_file import ConfigInvalid

READY_WITHIN_S: Final = 60.0
_ANY_PORT: Final = "127.0.0.1:0"


class Crew:
    """
    Starts a guarded worker for each pool, and one more when the file that it follows leads to a new pool.

    None is stopped before the end: where a route led elsewhere a moment ago, jobs go on there.
    """

    def __init__(
        self, supervisor: Supervisor, settings: Settings, *, env: Mapping[str, str], report: Callable[[str], None]
    ) -> None:
        self._supervisor = supervisor
        self._settings = settings
        self._env = {**env, "LETHE_OPERATOR_LISTEN": _ANY_PORT}
        self._report = report
        self._pools: set[str] = set()
        self._file = settings.config_path or DEFAULT_FILE
        self._stamp = stamp_of(self._file)
        self.config = load_config(self._file)

    async def start(self) -> None:
        """Start what is missing and wait until it takes jobs; a StackError names the worker that does not."""
        new = [pool for pool in pools(self.config) if pool not in self._pools]
        self._pools.update(new)
        async with self._processes() as processes:
            earlier = {process.id for process in await processes.alive()}
            await side_by_side(*(self._supervisor.start(self._worker(pool, processes, earlier)) for pool in new))

    async def follow(self) -> None:
        """Start whom a changed file asks for, and say what is wrong with one that is refused; until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if (stamp := stamp_of(self._file)) != self._stamp:
                self._stamp = stamp
                await self._reload()

    async def _reload(self) -> None:
        try:
            self.config = load_config(self._file)
        except ConfigInvalid as exc:
            self._report(f"{exc}\nwhat was configured before stays as it is")
            return
        self._report(f"{self._file} has changed, and holds from now on")
        for operation, why in closed(self.config, load_profile(self._settings.profile)).items():
            self._report(f"{operation} cannot run any more: {why}")
        before = set(self._pools)
        try:
            await self.start()
        except ChildDied:
            return  # whoever restarts the dead has said so
        except StackError as exc:
            self._report(str(exc))
            return
        for pool in sorted(self._pools - before):
            self._report(f"{pool} worker is ready")

    def _worker(self, pool: str, processes: ProcessStore, earlier: set[UUID]) -> Service:
        async def is_ready() -> bool:
            found = [process for process in await processes.alive() if process.id not in earlier]
            return any(p.role == "worker" and p.facts.pool == pool and p.facts.providers for p in found)

        return guarded(f"{pool}-worker", "-m", "workers", pool, env=self._env, is_ready=is_ready)

    @asynccontextmanager
    async def _processes(self) -> AsyncGenerator[ProcessStore]:
        database = Database(self._settings.postgres_dsn, connections=1)
        await database.open()
        try:
            yield ProcessStore(database)
        finally:
            await database.aclose()


def guarded_argv(*arguments: str) -> tuple[str, ...]:
    """Return the command that runs our Python with these arguments under the guard."""
    return (sys.executable, "-m", "broker.guard", sys.executable, *arguments)


def guarded(name: str, *arguments: str, env: Mapping[str, str], is_ready: Callable[[], Awaitable[bool]]) -> Service:
    """Describe a process of ours that runs under the guard."""
    return Service(name=name, argv=guarded_argv(*arguments), env=env, is_ready=is_ready, ready_within_s=READY_WITHIN_S)


async def side_by_side(*starts: Coroutine[object, object, object]) -> None:
    """Await all; the first error ends the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for start in starts:
                group.create_task(start)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None

"""Keeps Lethe's own processes up on one machine: starts them in order, restarts the dead, stops them in reverse."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from broker.children import Child, ChildDied, spawn

_LOOK_AGAIN_S: Final = 0.1
_FIRST_DELAY_S: Final = 0.2
_LONGEST_DELAY_S: Final = 10.0
# A process that ran this long did start well: its next restart is as quick as the first.
_SETTLED_AFTER_S: Final = 30.0


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the stack: how to start it and how to see that it is ready."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    is_ready: Callable[[], bool | Awaitable[bool]]
    ready_within_s: float = 15.0


class Supervisor:
    """Use as `async with`: leaving it stops every process that was started."""

    def __init__(self, *, logs: Path, report: Callable[[str], None], stop_within_s: float = 5.0) -> None:
        self._logs = logs
        self._report = report
        self._stop_within_s = stop_within_s
        self._services: dict[str, Service] = {}
        self._children: dict[str, Child] = {}
        self._failures: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pids(self) -> dict[str, int]:
        """Which process each service is at this moment."""
        return {name: child.pid for name, child in self._children.items()}

    async def start(self, service: Service) -> Child:
        """Start a process and wait until it is ready; ChildDied or ChildNotReady name it and its last log lines."""
        child = self._spawn(service)
        await child.wait_ready(service.is_ready, timeout_s=service.ready_within_s)
        return child

    async def watch(self, stopping: asyncio.Event, *, servers: Sequence[Child] = ()) -> None:
        """Restart what dies until `stopping` is set; ChildDied when one of `servers` ends, for nothing works then."""
        due_at_s: dict[str, float] = {}
        while not stopping.is_set():
            for server in servers:
                if server.returncode is not None:
                    raise ChildDied(server)
            for name, child in list(self._children.items()):
                if child.returncode is not None:
                    self._restart_when_due(name, child, due_at_s)
            await _sleep_unless(stopping)

    async def stop(self) -> None:
        """Stop in reverse order, all within stop_within_s; whoever takes longer is killed."""
        deadline_s = time.monotonic() + self._stop_within_s
        children = list(reversed(self._children.values()))
        self._children.clear()
        try:
            for child in children:
                await child.stop(grace_s=max(0.2, deadline_s - time.monotonic()))
        finally:
            for child in children:
                child.kill()

    def _spawn(self, service: Service) -> Child:
        child = spawn(service.argv, name=service.name, env=service.env, log=self._logs / f"{service.name}.log")
        self._services[service.name] = service
        self._children[service.name] = child
        return child

    def _restart_when_due(self, name: str, child: Child, due_at_s: dict[str, float]) -> None:
        now_s = time.monotonic()
        if name not in due_at_s:
            settled = now_s - child.started_at_s > _SETTLED_AFTER_S
            failures = 1 if settled else self._failures.get(name, 0) + 1
            delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** (failures - 1))
            self._failures[name] = failures
            due_at_s[name] = now_s + delay_s
            self._report(f"{ChildDied(child)}\n{name} starts again in {delay_s:.1f} s")
        elif now_s >= due_at_s[name]:
            del due_at_s[name]
            child.kill()
            self._spawn(self._services[name])


def stop_on_signals(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Return an event that SIGINT, SIGTERM or SIGHUP sets; a repeated Ctrl-C changes nothing, stopping is under way."""
    stopping = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, stopping.set)
    return stopping


async def _sleep_unless(stopping: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK_AGAIN_S):
            await stopping.wait()
    except TimeoutError:
        return

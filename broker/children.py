"""Child processes of the one-machine stack: they end with us, and say in their last log lines why they ended early."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from broker.prctl import die_with_parent

_LOOK_AGAIN_S: Final = 0.02
_QUIT_WITHIN_S: Final = 0.5
_LOG_KEPT_BYTES: Final = 1_048_576
_TAIL_BYTES: Final = 8_192


class StackError(Exception):
    """The one-machine stack cannot start or go on."""


class ChildDied(StackError):
    """A child ended though nobody had asked it to."""

    def __init__(self, child: "Child") -> None:
        lines = child.last_lines() or "(it logged nothing)"
        super().__init__(f"{child.name} ended with exit code {child.returncode}; {child.log} ends with:\n{lines}")


class ChildNotReady(StackError):
    """A child runs but did not become ready in time."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The user as whom a child runs, where it is not our own."""

    uid: int
    gid: int


class Child:
    """One running process, its own session and process group; made by spawn()."""

    def __init__(self, process: subprocess.Popen[bytes], *, name: str, log: Path) -> None:
        self._process = process
        self.name = name
        self.log = log
        self.started_at_s = time.monotonic()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._process.returncode is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            self._bury()
        return self._process.returncode

    def last_lines(self, count: int = 10) -> str:
        """Return the end of its log."""
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-count:])
        return ""

    async def wait(self, *, timeout_s: float) -> bool:
        """Wait for its end; False when it still runs after timeout_s."""
        return await until(lambda: self.returncode is not None, timeout_s=timeout_s)

    async def wait_ready(self, is_ready: Callable[[], bool | Awaitable[bool]], *, timeout_s: float) -> None:
        """Wait until is_ready() says so; ChildDied or ChildNotReady otherwise."""

        async def decided() -> bool:
            if self.returncode is not None:
                raise ChildDied(self)
            answer = is_ready()
            return answer if isinstance(answer, bool) else await answer

        if not await until(decided, timeout_s=timeout_s):
            lines = self.last_lines()
            raise ChildNotReady(f"{self.name} was not ready after {timeout_s:.0f} s; {self.log} ends with:\n{lines}")

    async def stop(self, *, signum: int = signal.SIGTERM, grace_s: float = 3.0) -> None:
        """Ask it to end, tell it (SIGQUIT lets a guard take its group along), then SIGKILL; returns when it is gone."""
        try:
            for asked, within_s in ((signum, grace_s), (signal.SIGQUIT, _QUIT_WITHIN_S)):
                if self.returncode is None:
                    os.kill(self.pid, asked)
                    await self.wait(timeout_s=within_s)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL its whole group, and reap it."""
        if self._process.returncode is None:
            self._bury()

    def _bury(self) -> None:
        # The group first: until we wait for its leader, nobody else can be given its number.
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def spawn(  # noqa: PLR0913 -- all that is particular to a process, by name
    argv: Sequence[str | Path],
    *,
    name: str,
    env: Mapping[str, str],
    log: Path,
    cwd: Path | None = None,
    stdin: bytes = b"",
    death_signal: int = signal.SIGKILL,
    identity: Identity | None = None,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Start a child that gets death_signal when we end, however we end; call this from the main thread.

    It has a session of its own: one Ctrl-C in the terminal reaches us alone, and we stop the children in order.
    """
    with open_log(log) as output:
        process = subprocess.Popen(  # noqa: S603 -- every argv is ours
            [os.fspath(part) for part in argv],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(death_signal),  # noqa: PLW1509 -- it calls prctl and setrlimit, and takes no lock
            pass_fds=pass_fds,
            user=identity.uid if identity else None,
            group=identity.gid if identity else None,
            extra_groups=[] if identity else None,
        )
    if process.stdin:
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(stdin)
    return Child(process, name=name, log=log)


def open_log(path: Path) -> BinaryIO:
    """Open a log for appending, readable by us alone; one that has grown large starts anew."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_large = path.exists() and path.stat().st_size > _LOG_KEPT_BYTES
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if is_large else 0), 0o600)
    return os.fdopen(descriptor, "wb")


async def until(predicate: Callable[[], bool | Awaitable[bool]], *, timeout_s: float) -> bool:
    """Ask again and again until the answer is yes; False after timeout_s."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        answer = predicate()
        if answer if isinstance(answer, bool) else await answer:
            return True
        if time.monotonic() >= deadline_s:
            return False
        await asyncio.sleep(_LOOK_AGAIN_S)

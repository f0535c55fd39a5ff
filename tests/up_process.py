"""`lethe up` in a terminal of its own, as a person runs it."""

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from broker.prctl import die_with_parent
from tests.stack import DATA

REPOSITORY = Path(__file__).parents[1]
UP = "Ctrl-C stops everything."


def lethe(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "broker.cli", *arguments]


def plain_environment(**extra: str) -> dict[str, str]:
    """No setting of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LETHE_")}
    return {**kept, "LETHE_DATA_DIR": str(DATA), "PYTHONPATH": str(REPOSITORY), **extra}


def processes_of(directory: Path) -> dict[int, str]:
    """Every process that has this directory in its command, environment or working directory, and its command."""
    name = str(directory).encode()
    found: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            told = command + (entry / "environ").read_bytes() + os.fsencode((entry / "cwd").readlink())
            if name in told and command:
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


def alive(pids: set[int]) -> set[int]:
    left: set[int] = set()
    for pid in pids:
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                left.add(pid)
    return left


def wait_until_gone(pids: set[int], *, within_s: float) -> set[int]:
    """Return those that are still alive after that time."""
    deadline_s = time.monotonic() + within_s
    while alive(pids) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return alive(pids)


class UpProcess:
    """One `lethe up` with a terminal."""

    def __init__(self, directory: Path, *options: str, **settings: str) -> None:
        self.directory = directory
        self.output = ""
        self._terminal, inner = pty.openpty()
        self.running = subprocess.Popen(
            lethe("up", "--directory", str(directory), *options),
            env=plain_environment(**settings),
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=_own_terminal(),  # noqa: PLW1509 -- a few system calls, no lock
        )
        os.close(inner)

    def read_until(self, words: str, *, within_s: float = 60.0) -> None:
        deadline_s = time.monotonic() + within_s
        while words not in self.output:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, self.output
            assert self._read(left_s), f"ended early: {self.output}"

    def read_rest(self) -> str:
        while self._read(10.0):
            pass
        return self.output

    def press_ctrl_c(self) -> None:
        os.write(self._terminal, b"\x03")

    @property
    def url(self) -> str:
        found = re.search(r"Lethe is up at (http://\S+)", self.output)
        assert found
        return found[1]

    def close(self) -> None:
        if self.running.poll() is None:
            self.running.send_signal(signal.SIGTERM)
            try:
                self.running.wait(20)
            except subprocess.TimeoutExpired:
                self.running.kill()
                self.running.wait(5)
        os.close(self._terminal)

    def _read(self, within_s: float) -> bool:
        if not select.select([self._terminal], [], [], within_s)[0]:
            return False
        try:
            received = os.read(self._terminal, 65_536)
        except OSError:  # the other side is closed
            return False
        self.output += received.decode(errors="replace").replace("\r\n", "\n")
        return bool(received)


def _own_terminal() -> Callable[[], None]:
    end_with_us = die_with_parent(signal.SIGKILL)

    def in_child() -> None:
        end_with_us()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    return in_child


@contextmanager
def lethe_up(directory: Path, *options: str, **settings: str) -> Generator[UpProcess]:
    """Inside the block it takes jobs."""
    process = UpProcess(directory, *options, **settings)
    try:
        process.read_until(UP)
        yield process
    finally:
        process.close()

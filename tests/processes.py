"""Lethe's own processes for tests, under their guard, as an operator starts them; they end with whoever runs tests."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from broker.prctl import die_with_parent
from broker.settings import Settings
from tests.checks import leaks
from tests.filewatch.writers import TEMPORARY
from tests.stack import environment_of


class LetheProcess:
    """One guarded process of ours, with its log."""

    def __init__(self, arguments: list[str], settings: Settings, log: Path, extra: Mapping[str, str]) -> None:
        self.log_path = log
        self._command = [sys.executable, "-m", "broker.guard", sys.executable, "-m", *arguments]
        watched = {"TMPDIR": os.environ[TEMPORARY]} if TEMPORARY in os.environ else {}
        self._environment = {**os.environ, **watched, **environment_of(settings), **extra}
        self.start()

    def start(self) -> None:
        with self.log_path.open("ab") as output:
            self.running = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- it calls prctl and setrlimit, and takes no lock
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def child_pid(self) -> int:
        """The guarded process itself; `running` is its guard."""
        children = Path(f"/proc/{self.running.pid}/task/{self.running.pid}/children").read_text().split()
        return int(children[0])

    def kill(self) -> None:
        """Kill -9 of the guarded process."""
        os.kill(self.child_pid, signal.SIGKILL)
        self.running.wait(10)

    def stop(self) -> int:
        if self.running.poll() is None:
            self.running.terminate()
        return self.running.wait(20)


@contextmanager
def lethe_process(
    arguments: list[str], settings: Settings, folder: Path, **extra: str
) -> Generator[LetheProcess, None, None]:
    process = LetheProcess(arguments, settings, folder / f"{arguments[0]}-{len(list(folder.iterdir()))}.log", extra)
    try:
        yield process
    finally:
        if process.running.poll() is None:
            process.running.send_signal(signal.SIGTERM)
            try:
                process.running.wait(20)
            except subprocess.TimeoutExpired:
                process.running.kill()
                process.running.wait(5)
        assert not leaks(process.log.splitlines())

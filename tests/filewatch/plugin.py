"""
Watches the file system while a whole test run lasts, and fails it where a process of Lethe's wrote what it may not.

Under xdist it is the process that hands out tests which has it watched, with whatever it starts.
"""

import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from os import environ, getpid
from typing import Final

import msgspec
import pytest
from _pytest.terminal import TerminalReporter

from tests.filewatch.recorder import READY, Seen
from tests.filewatch.rules import REPOSITORY
from tests.filewatch.writers import MARK, TEMPORARY

_ENDS_WITHIN_S: Final = 60.0


class FileWatch:
    """One run under watch."""

    def __init__(self, basetemp: str) -> None:
        self._before = {name: environ.get(name, "") for name in (MARK, TEMPORARY)}
        self._run = ":".join(filter(None, (self._before[MARK], secrets.token_hex(8))))
        self._own = ""
        self._basetemp = [basetemp] if basetemp else []
        self._recorder: subprocess.Popen[bytes] | None = None
        self.seen: Seen | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Begin before anybody else starts a process."""
        self._own = tempfile.mkdtemp(prefix="lethe-watched-")
        command = [sys.executable, "-m", "tests.filewatch.recorder", self._run, str(getpid())]
        pipe = subprocess.PIPE
        self._recorder = subprocess.Popen(
            [*command, self._own, *self._basetemp], cwd=REPOSITORY, stdin=pipe, stdout=pipe
        )
        assert self._recorder.stdout is not None
        if self._recorder.stdout.readline() != READY:
            pytest.exit("the file system cannot be watched", returncode=3)
        environ[MARK], environ[TEMPORARY] = self._run, self._own

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """End when everybody else has, and fail the run on what was seen."""
        for name, before in self._before.items():
            environ.pop(name)
            environ.update({name: before} if before else {})
        assert self._recorder is not None
        told, _ = self._recorder.communicate(timeout=_ENDS_WITHIN_S)
        shutil.rmtree(self._own, ignore_errors=True)
        self.seen = msgspec.json.decode(told, type=Seen) if told else None
        if (self.seen is None or self.seen.violations) and session.exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Say what was watched, and what was found."""
        terminalreporter.section("file system")
        terminalreporter.write_line("\n".join(_words(self.seen)))


def _words(seen: Seen | None) -> Generator[str]:
    if seen is None:
        yield "FAILED: what watches the file system ended early"
        return
    yield f"watched: {seen.form}, on {', '.join(seen.places)}"
    counts = sorted(seen.writes.items())
    yield f"files closed after writing: {', '.join(f'{role} {count}' for role, count in counts) or 'none'}"
    yield f"watching took {seen.took_s:.1f} s of processor time"
    yield from (f"FAILED: {violation}" for violation in seen.violations)
    if not seen.violations:
        yield "nothing was written where it may not be (tests/filewatch/allowed.toml)"


def pytest_configure(config: pytest.Config) -> None:
    """Watch from here, unless this process is one that only runs tests for another."""
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        config.pluginmanager.register(FileWatch(config.option.basetemp or ""), "lethe-filewatch")

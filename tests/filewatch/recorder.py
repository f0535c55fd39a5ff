"""
The process that watches while tests run: `python -m tests.filewatch.recorder RUN PID OWN [BASETEMP]`.

A process of its own, so that neither the tests' threads nor their lock slow it down: it has to look at whoever wrote
before that process has ended. It says `ready`, watches until its standard input ends, and prints what it saw as JSON.
"""

import os
import select
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from tests.filewatch.fanotify import Event, Fanotify
from tests.filewatch.inotify import OF_TEMPFILE, Inotify
from tests.filewatch.rules import Rules, is_upload
from tests.filewatch.writers import Role, Writer, Writers

STRONG: Final = "every file that is closed after writing (fanotify)"
WEAK: Final = "names that appear in temporary directories (inotify: only root sees who writes what, and where else)"
READY: Final = b"ready\n"
EVERYTHING: Final = "LETHE_TEST_WRITES"
"""Names a file for all that was written, by whom and how often: what allowed.toml is made from."""

_AGAIN_MS = 4
_FORGETS_EVERY_S = 10.0
_MOST_VIOLATIONS = 50
_HEAD_BYTES = 65_536
_SERVERS = {Role.POSTGRES, Role.REDIS}  # write by far the most, and are judged by the path alone


class Seen(msgspec.Struct, kw_only=True):
    """What was seen."""

    form: str
    places: list[str]
    writes: dict[str, int] = {}
    """How many files were closed after writing, by role."""
    violations: list[str] = []
    took_s: float = 0.0
    """How much processor time it cost to watch."""


class Strong:
    """Tells of every file who wrote it."""

    def __init__(self, run: str, root: int, rules: Rules) -> None:
        self._fanotify = Fanotify()
        self.fd = self._fanotify.fd
        self.seen = Seen(form=STRONG, places=[str(mount) for mount in self._fanotify.mounts])
        self._all: Counter[tuple[str, str]] = Counter()
        self._writers = Writers(roots={root: run})
        self._run = run
        self._rules = rules
        self._is_all_told = EVERYTHING in os.environ
        self._forgot_s = time.monotonic()

    @property
    def again_ms(self) -> int | None:
        """How soon to look again though nothing happens."""
        return None if self._writers.is_settled else _AGAIN_MS

    def look(self) -> None:
        """Take in everything that has happened."""
        pid, writer = 0, None  # whoever closes one file mostly closes the next: who it is was looked up a moment ago
        for event in self._fanotify.events(within_ms=0):
            if event.is_program:
                self._writers.begins(event.pid)
                writer = None
                continue
            if writer is None or event.pid != pid:
                pid, writer = event.pid, self._writers.of(event.pid)
            self._take(writer, event)
        self._writers.look_again()
        if time.monotonic() - self._forgot_s > _FORGETS_EVERY_S:
            self._writers.forget_ended()
            self._forgot_s = time.monotonic()

    def told(self) -> str:
        """Say of every file who wrote it and how often, where that was asked for."""
        lines = (f"{role}\t{count}\t{path}\n" for (role, path), count in self._all.items())
        return "".join(sorted(lines))

    def _take(self, writer: Writer, event: Event) -> None:
        if writer.runs == self._run:
            self.seen.writes[writer.role] = self.seen.writes.get(writer.role, 0) + 1
            self._judge(writer, event)
        elif writer.role is Role.UNKNOWN and self._rules.is_temporary(event.path):
            self._judge(writer, event)

    def _judge(self, writer: Writer, event: Event) -> None:
        path = event.path
        if self._is_all_told:
            self._all[writer.role, path] += 1
        head = b"" if writer.role in _SERVERS else os.pread(event.fd, _HEAD_BYTES, 0)
        if not self._rules.is_allowed(writer.role, path, head):
            self.seen.violations.append(f"{writer.role} wrote {path} ({writer.command})")


class Weak:
    """
    Tells what appeared in temporary directories that looks like Python's tempfile, or holds an upload of a test.

    Nobody knows who made it. Lethe's own processes are started with a directory of their own for temporary files, in
    which nothing may appear at all; elsewhere a file that never had a name may be what pytest captures, and is let go.
    """

    again_ms = None

    def __init__(self, own: str, rules: Rules) -> None:
        directories = [own, *rules.temporary]
        self._inotify = Inotify(directories)
        self.fd = self._inotify.fd
        self.seen = Seen(form=WEAK, places=directories)
        self._own = Path(own)

    def told(self) -> str:
        """Say nothing: nobody knows who writes."""
        return ""

    def look(self) -> None:
        """Take in everything that has happened."""
        for path in self._inotify.written(within_ms=0):
            self.seen.writes[Role.UNKNOWN] = self.seen.writes.get(Role.UNKNOWN, 0) + 1
            if path.parent == self._own or OF_TEMPFILE.fullmatch(path.name) or is_upload(_head(path)):
                self.seen.violations.append(f"somebody wrote {path}")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:  # it has gone, or never had a name
        return b""


def watch(run: str, root: int, own: str, rules: Rules) -> Strong | Weak:
    """Watch as well as this user may."""
    try:
        return Strong(run, root, rules)
    except OSError:
        return Weak(own, rules)


def main() -> None:
    """Watch until whoever started this closes the pipe, or ends."""
    run, root, own, *basetemp = sys.argv[1:]
    with suppress(OSError):  # whoever writes may end a moment later: be there before that
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    watched = watch(run, int(root), own, Rules(*basetemp))
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    poller = select.poll()
    poller.register(watched.fd, select.POLLIN)
    poller.register(0, select.POLLHUP)
    while not any(fd == 0 for fd, _ in poller.poll(watched.again_ms)):
        watched.look()
    watched.look()
    seen = watched.seen
    seen.took_s = time.process_time()
    seen.violations = list(dict.fromkeys(seen.violations))[:_MOST_VIOLATIONS]
    if file := os.environ.get(EVERYTHING):
        Path(file).write_text(watched.told())
    sys.stdout.buffer.write(msgspec.json.encode(seen))


if __name__ == "__main__":
    main()

"""Which process of a test run wrote a file, and what it is: told from its command, its parents and its environment."""

import os
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

MARK: Final = "PYTEST_WATCHED_AS"
"""
The variable that marks processes of a watched run; in a run within a run it holds both names. Not one of LETHE_…:
tests take those away from what they start.
"""

TEMPORARY: Final = "PYTEST_WATCHED_TMPDIR"
"""Names a directory that Lethe's own processes have for temporary files; nothing may appear in it."""

_XDIST: Final = "import sys;exec(eval(sys.stdin.readline()))"
_SETTLES_WITHIN: Final = 15  # looks, some milliseconds apart, until a program that begins must have its new command


class Role(StrEnum):
    """What a process is, as far as it matters for where it may write."""

    BROKER = "broker"
    WORKER = "worker"
    KEYHOLDER = "keyholder"
    NURSERY = "nursery"
    GUARD = "guard"
    COMMAND = "command"  # `lethe …`
    POSTGRES = "postgres"
    REDIS = "redis"
    PYTEST = "pytest"  # with the services that run in its own process
    OTHER = "other"  # other people's servers, emulators, scripts of tests
    UNKNOWN = "unknown"  # ended before anybody looked


MODULES: Final = {
    "broker": Role.BROKER,
    "workers": Role.WORKER,
    "tests.slow_worker": Role.WORKER,
    "tests.half_a_body": Role.BROKER,
    "broker.keyholder": Role.KEYHOLDER,
    "workers.images.nursery": Role.NURSERY,
    "tests.evil_nursery": Role.NURSERY,
    "broker.guard": Role.GUARD,
    "broker.forensics.processes": Role.OTHER,  # leaks on purpose, and is found
    "pytest": Role.PYTEST,
}
_HOOKED: Final = {"broker": "broker", "keyholder": "broker.keyholder"}  # tests/crash/process.py; else a pool
PROGRAMS: Final = {
    "postgres": Role.POSTGRES,
    "initdb": Role.POSTGRES,
    "redis-server": Role.REDIS,
    "redis-rdb-bgsave": Role.REDIS,
    "redis-aof-rewrite": Role.REDIS,
    "lethe": Role.COMMAND,
    "pytest": Role.PYTEST,
}


def role_of(command: Sequence[str]) -> Role:
    """Say what a process is from its command line; a guard is what stands first, not what it guards."""
    if not command:
        return Role.UNKNOWN
    modules = [after for word, after in pairwise(command) if word == "-m"]
    if modules:
        name = _HOOKED.get(command[-1], "workers") if modules[0] == "tests.crash.process" else modules[0]
        return MODULES.get(name) or (Role.COMMAND if name.startswith("broker.") else Role.OTHER)
    if _XDIST in command:
        return Role.PYTEST
    names = [Path(word.split()[0]).name.rstrip(":") for word in command[:2] if word.split()]
    return next((PROGRAMS[name] for name in names if name in PROGRAMS), Role.OTHER)


class Writer(NamedTuple):
    """A process, as it was when it was last seen."""

    role: Role
    command: str
    runs: str
    """The names of the watched runs that it belongs to, outermost first; none where it is somebody else's."""


class _Known(msgspec.Struct, kw_only=True):
    began: str
    parent: int
    writer: Writer
    has_ended: bool = False
    looks_left: int = 0
    """So often it is looked at again, since its program has only begun."""


class Look(NamedTuple):
    """What /proc says of a process."""

    began: str
    parent: int
    command: list[str]
    runs: str


def look_at(pid: int) -> Look | None:
    """Look at a live process; None where it has gone."""
    entry = Path(f"/proc/{pid}")
    fields = _fields(pid)
    try:
        command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        runs = [name for name in (entry / "environ").read_bytes().split(b"\0") if name.startswith(MARK.encode())]
    except OSError:
        return None
    if not fields:
        return None
    told = runs[0].partition(b"=")[2].decode() if runs else ""
    return Look(began=fields[19], parent=int(fields[1]), command=[word for word in command if word], runs=told)


def began_at(pid: int) -> str:
    """Say when a live process was forked: a number that is used again belongs to another; empty where it has gone."""
    fields = _fields(pid)
    return fields[19] if fields else ""


def _fields(pid: int) -> list[str]:
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return []
    try:
        return os.read(descriptor, 1024).decode(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    finally:
        os.close(descriptor)


class Writers:
    """Remembers processes from the moment their program begins: who has ended when it is asked for is known still."""

    def __init__(
        self,
        roots: Mapping[int, str],
        look: Callable[[int], Look | None] = look_at,
        began: Callable[[int], str] = began_at,
    ) -> None:
        """Take the processes that a run began with, and what it is called."""
        self._roots = roots
        self._look = look
        self._began = began
        self._known: dict[int, _Known] = {}
        self._unsettled: set[int] = set()

    @property
    def is_settled(self) -> bool:
        """Whether nobody has to be looked at again."""
        return not self._unsettled

    def begins(self, pid: int) -> None:
        """Take note of a program that is about to run in a process."""
        if self.of(pid).runs:  # else it is somebody else's, and stays so
            self._known[pid].looks_left = _SETTLES_WITHIN
            self._unsettled.add(pid)

    def look_again(self) -> None:
        """Look at all whose program has only begun."""
        for pid in list(self._unsettled):
            known = self._known[pid]
            before, known.looks_left = known.writer, known.looks_left - 1
            if self.of(pid) != before:
                known.looks_left = 0
            if known.looks_left <= 0 or self._known[pid] is not known:
                self._unsettled.discard(pid)

    def forget_ended(self) -> None:
        """Forget who had ended already when this was called last: their numbers are given out again."""
        for pid, known in list(self._known.items()):
            if self._began(pid) == known.began:
                continue
            if known.has_ended:
                del self._known[pid]
                self._unsettled.discard(pid)
            known.has_ended = True

    def of(self, pid: int) -> Writer:
        """Say who a process is."""
        known, began = self._known.get(pid), self._began(pid)
        if known and (not began or (began == known.began and not known.looks_left)):
            return known.writer
        if (look := self._look(pid)) is None:
            return known.writer if known else Writer(Role.UNKNOWN, "", "")
        if known is None or known.began != look.began:
            known = _Known(began=look.began, parent=look.parent, writer=self._parent(look))
            self._known[pid] = known
        if look.command:  # a process that ends has none any more
            runs = self._roots.get(pid) or look.runs or known.writer.runs
            known.writer = Writer(role_of(look.command), " ".join(look.command)[:300], runs)
        return known.writer

    def _parent(self, look: Look) -> Writer:
        """Begin as the process that it was forked from."""
        return self.of(look.parent) if look.parent > 1 else Writer(Role.UNKNOWN, "", "")

"""A small parent that kills the process group of its child when the lease ends; it holds neither key nor plaintext.

The child writes deadlines (8 bytes, little endian, nanoseconds of CLOCK_BOOTTIME, 0 = disarmed) to an inherited pipe.
Any process with that pipe can postpone its own death: a child that forks for untrusted bytes closes it in the fork.
"""

import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, Self

from broker.prctl import FORGETFUL_HEAP, adopt_orphans, die_with_parent, refuse_dumps, soften_death_with_parent

GUARD_FD_VARIABLE: Final = "LETHE_GUARD_FD"
EXIT_LEASE_ENDED: Final = 75

_DEADLINE = struct.Struct("<Q")
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# "At once": not passed on, the group is killed. Our own parent's end comes as this signal too, instead of the SIGKILL
# that would leave grandchildren behind.
_AT_ONCE = signal.SIGQUIT
# poll() does not count time spent suspended, CLOCK_BOOTTIME does: look at the clock at least this often while armed.
_LOOK_AGAIN_MS = 100


class GuardError(Exception):
    """The process cannot be, or is no longer, guarded."""


class GuardMissing(GuardError):
    """A process that may hold plaintext was started without a guard."""


class GuardGone(GuardError):
    """The guard does not read deadlines any more."""


class Guard:
    """The guarded side: says until when this process may live."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
        self._fd = fd

    @classmethod
    def from_environment(cls) -> Self:
        """Take the pipe that the guard passed on; raises GuardMissing where there is none."""
        # The pipe is private to guard and child: no setting that anybody should find in Settings.
        number = os.environ.pop(GUARD_FD_VARIABLE, "")  # noqa: TID251
        try:
            return cls(int(number))
        except (ValueError, OSError) as error:
            raise GuardMissing("start this process with `python -m broker.guard`: it may hold plaintext") from error

    def arm(self, deadline_boottime_ns: int) -> None:
        """Die at the deadline unless a later one, or disarm(), comes first."""
        if deadline_boottime_ns <= 0:
            raise ValueError("a deadline is a positive time; disarm() takes it away")
        self._write(deadline_boottime_ns)

    def disarm(self) -> None:
        """Live on without a deadline: nothing secret is held any more."""
        self._write(0)

    @property
    def is_there(self) -> bool:
        """Whether somebody still reads deadlines."""
        poller = select.poll()
        poller.register(self._fd, select.POLLERR)
        return not poller.poll(0)

    def close(self) -> None:
        """Give up the pipe; a deadline that was set stays."""
        os.close(self._fd)

    def _write(self, deadline_ns: int) -> None:
        try:
            os.write(self._fd, _DEADLINE.pack(deadline_ns))
        except OSError as error:
            raise GuardGone("the guard does not read deadlines any more") from error


def hardened(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which every Lethe process starts: freed heap is overwritten."""
    present = environment.get("GLIBC_TUNABLES", "")
    others = [part for part in present.split(":") if part and not part.startswith("glibc.malloc.")]
    tunables = ":".join([*others, FORGETFUL_HEAP["GLIBC_TUNABLES"]])
    return {**environment, **FORGETFUL_HEAP, "GLIBC_TUNABLES": tunables}


def run_guarded(argv: Sequence[str]) -> int:
    """Run argv in a process group of its own until it ends or its deadline passes; return the exit code."""
    refuse_dumps()  # its environment may hold providers' secrets
    adopt_orphans()
    soften_death_with_parent(_AT_ONCE)
    read_fd, write_fd = os.pipe()
    wake_fd = _wake_on_signals()
    environment = hardened(os.environ)  # noqa: TID251 -- passed on to the child whole, not read
    environment[GUARD_FD_VARIABLE] = str(write_fd)
    child = subprocess.Popen(  # noqa: S603 -- the caller's own argv
        argv,
        env=environment,
        pass_fds=(write_fd,),
        process_group=0,
        preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- it calls prctl and setrlimit, and takes no lock
    )
    os.close(write_fd)
    os.set_blocking(read_fd, False)
    _forward_signals_to(child.pid)
    expired = _watch(child.pid, read_fd, wake_fd)
    _kill_everything(child.pid)
    for signum in (*_FORWARDED, _AT_ONCE):
        signal.signal(signum, signal.SIG_IGN)
    if expired:
        return EXIT_LEASE_ENDED
    code = child.wait()
    return code if code >= 0 else 128 - code


def _wake_on_signals() -> int:
    """Return an fd that becomes readable with every signal, so that poll() returns at once."""
    wake_fd, signal_fd = os.pipe()
    os.set_blocking(wake_fd, False)
    os.set_blocking(signal_fd, False)
    signal.set_wakeup_fd(signal_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
    return wake_fd


def _forward_signals_to(pid: int) -> None:
    """Pass signals on; one that comes before this ends the guard, and the child with it."""

    def forward(signum: int, _frame: FrameType | None) -> None:
        os.kill(pid, signum)  # never another process: the child stays a zombie until run_guarded() waits for it

    def kill_group(_signum: int, _frame: FrameType | None) -> None:
        os.killpg(pid, signal.SIGKILL)

    for signum in _FORWARDED:
        signal.signal(signum, forward)
    signal.signal(_AT_ONCE, kill_group)


def _watch(pid: int, read_fd: int, wake_fd: int) -> bool:
    """Wait until the child ends (False) or its latest deadline passes (True)."""
    poller = select.poll()
    poller.register(read_fd, select.POLLIN)
    poller.register(wake_fd, select.POLLIN)
    deadline_ns = 0
    while not _has_ended(pid):
        for fd, _event in poller.poll(_timeout_ms(deadline_ns)):
            received = _read(fd)
            if fd == read_fd and received == b"":
                poller.unregister(read_fd)  # nobody can renew any more; the deadline stands
            elif fd == read_fd and received:
                (deadline_ns,) = _DEADLINE.unpack(received[-_DEADLINE.size :])
        # After the pipe has been read: a renewal that was written in time counts.
        if deadline_ns and time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= deadline_ns:
            return True
    return False


def _timeout_ms(deadline_ns: int) -> int | None:
    if not deadline_ns:
        return None
    left_ns = deadline_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return max(0, min(_LOOK_AGAIN_MS, left_ns // 1_000_000 + 1))


def _read(fd: int) -> bytes | None:
    """Drain the pipe (64 KiB is all it holds, and deadlines are written whole)."""
    try:
        return os.read(fd, 65_536)
    except BlockingIOError:
        return None


def _has_ended(pid: int) -> bool:
    """Tell without reaping, so that neither the pid nor the group's number can be given to anyone else."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_everything(group: int) -> None:
    """SIGKILL the group (stopped processes too), then whoever left it and was handed to us as an orphan."""
    os.killpg(group, signal.SIGKILL)
    os.waitid(os.P_PID, group, os.WEXITED | os.WNOWAIT)
    while others := [pid for pid in _own_children() if pid != group]:
        for pid in others:
            os.kill(pid, signal.SIGKILL)
        for pid in others:
            os.waitpid(pid, 0)


def _own_children() -> list[int]:
    pid = os.getpid()
    try:
        return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(run_guarded(sys.argv[1:]))

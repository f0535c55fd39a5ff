"""The lease guard: what it kills, when, and what it passes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.guard import EXIT_LEASE_ENDED, Guard, GuardGone, GuardMissing, hardened
from broker.prctl import FORGETFUL_HEAP

TUNABLES = FORGETFUL_HEAP["GLIBC_TUNABLES"]
REPOSITORY = Path(__file__).parents[2]
PREAMBLE = """
import os, signal, subprocess, sys, time
from broker.guard import Guard
guard = Guard.from_environment()
def in_s(seconds): return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(seconds * 1e9)
def say(*words): print(*words, flush=True)
"""

Running = subprocess.Popen[str]


@pytest.fixture
def guarded() -> Iterator[Callable[[str], Running]]:
    started: list[Running] = []

    def start(script: str) -> Running:
        argv = [sys.executable, "-m", "broker.guard", sys.executable, "-c", PREAMBLE + script]
        guard = subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        started.append(guard)
        return guard

    yield start
    for guard in started:
        guard.kill()
        guard.wait()
        if guard.stdout:
            guard.stdout.close()


def line(guard: Running) -> list[str]:
    assert guard.stdout
    return guard.stdout.readline().split()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_gone(pid: int, *, timeout_s: float = 5.0) -> None:
    until = time.monotonic() + timeout_s
    while is_alive(pid):
        assert time.monotonic() < until, f"{pid} still runs"
        time.sleep(0.005)


@pytest.mark.parametrize(
    "blocks",
    [
        "time.sleep(60)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
    ],
    ids=["sleeping", "stopped", "deaf and busy"],
)
def test_armed_child_and_its_children_die_at_the_deadline(guarded: Callable[[str], Running], blocks: str) -> None:
    """Whatever state it is in, the child is dead with its grandchildren within 0.2 s of its deadline."""
    guard = guarded(
        "inside = subprocess.Popen(['sleep', '60'])\n"
        "escaped = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "deadline = in_s(0.3); guard.arm(deadline)\n"
        f"say(deadline, os.getpid(), inside.pid, escaped.pid)\n{blocks}"
    )
    deadline_ns, *pids = (int(word) for word in line(guard))
    assert guard.wait(timeout=5) == EXIT_LEASE_ENDED
    ended_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert deadline_ns <= ended_ns < deadline_ns + 200_000_000
    assert not any(is_alive(pid) for pid in pids)


def test_renewals_keep_the_child_alive(guarded: Callable[[str], Running]) -> None:
    """A later deadline replaces an earlier one: leases of 0.5 s, renewed in time, outlast 0.5 s."""
    guard = guarded("for _ in range(7):\n guard.arm(in_s(0.5)); time.sleep(0.1)\nsys.exit(7)")
    assert guard.wait(timeout=5) == 7


def test_a_shorter_deadline_replaces_a_longer_one(guarded: Callable[[str], Running]) -> None:
    """The latest word counts, not the latest time."""
    guard = guarded("guard.arm(in_s(60)); guard.arm(in_s(0.05)); time.sleep(60)")
    assert guard.wait(timeout=5) == EXIT_LEASE_ENDED


def test_deadline_stands_when_the_pipe_is_closed(guarded: Callable[[str], Running]) -> None:
    """A child that can renew no longer is not let off."""
    guard = guarded("guard.arm(in_s(0.1)); guard.close(); time.sleep(60)")
    assert guard.wait(timeout=5) == EXIT_LEASE_ENDED


def test_disarmed_child_lives_on(guarded: Callable[[str], Running]) -> None:
    """Without a deadline nothing is killed."""
    guard = guarded("guard.arm(in_s(0.1)); guard.disarm(); time.sleep(0.3); sys.exit(3)")
    assert guard.wait(timeout=5) == 3


def test_killing_the_guard_kills_the_child(guarded: Callable[[str], Running]) -> None:
    """No process outlives the one that would have killed it."""
    guard = guarded("say(os.getpid()); time.sleep(60)")
    (pid,) = (int(word) for word in line(guard))
    guard.kill()
    wait_gone(pid)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_on(guarded: Callable[[str], Running], signum: signal.Signals) -> None:
    """The child decides how to end; the guard ends with its exit code."""
    guard = guarded(
        "def end(signum, _frame): sys.exit(signum + 40)\n"
        f"signal.signal({int(signum)}, end)\nsay('ready')\ntime.sleep(60)"
    )
    assert line(guard) == ["ready"]
    guard.send_signal(signum)
    assert guard.wait(timeout=5) == signum + 40


def test_sigquit_kills_at_once(guarded: Callable[[str], Running]) -> None:
    """SIGQUIT is for the guard itself: it kills a child that is deaf to everything else, and its children."""
    guard = guarded(
        "inside = subprocess.Popen(['sleep', '60'])\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); say(os.getpid(), inside.pid); time.sleep(60)"
    )
    pids = [int(word) for word in line(guard)]
    guard.send_signal(signal.SIGQUIT)
    assert guard.wait(timeout=5) == 128 + signal.SIGKILL
    assert not any(is_alive(pid) for pid in pids)


def test_grandchildren_end_with_the_child(guarded: Callable[[str], Running]) -> None:
    """A child that ends by itself leaves nobody behind, be it in its group or in a session of its own."""
    guard = guarded(
        "a = subprocess.Popen(['sleep', '60']); b = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "say(a.pid, b.pid)\nos._exit(5)"
    )
    pids = [int(word) for word in line(guard)]
    assert guard.wait(timeout=5) == 5
    assert not any(is_alive(pid) for pid in pids)


def test_death_by_signal_is_passed_on_as_shells_do(guarded: Callable[[str], Running]) -> None:
    """128 + signal number."""
    guard = guarded("os.kill(os.getpid(), signal.SIGKILL)")
    assert guard.wait(timeout=5) == 128 + signal.SIGKILL


def test_child_starts_with_freed_heap_overwritten(guarded: Callable[[str], Running]) -> None:
    """The malloc tunables stand in the environment, the pipe's number does not stay there."""
    guard = guarded("say(os.environ['GLIBC_TUNABLES'], os.environ['PYTHONMALLOC'], 'LETHE_GUARD_FD' in os.environ)")
    assert line(guard) == [TUNABLES, "malloc", "False"]


def test_tunables_of_the_operator_stay() -> None:
    """Only glibc.malloc is ours to set."""
    tunables = hardened({"GLIBC_TUNABLES": "glibc.pthread.rseq=0:glibc.malloc.perturb=1"})["GLIBC_TUNABLES"]
    assert tunables == f"glibc.pthread.rseq=0:{TUNABLES}"


def test_no_guard_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that holds plaintext refuses to start unguarded, also when the number it got is no open file."""
    monkeypatch.delenv("LETHE_GUARD_FD", raising=False)
    with pytest.raises(GuardMissing):
        Guard.from_environment()
    monkeypatch.setenv("LETHE_GUARD_FD", "987654")
    with pytest.raises(GuardMissing):
        Guard.from_environment()


def test_arming_a_dead_guard_says_so() -> None:
    """A deadline that nobody reads is an error, never silence."""
    read_fd, write_fd = os.pipe()
    guard = Guard(write_fd)
    os.close(read_fd)
    with pytest.raises(GuardGone):
        guard.arm(1)
    guard.close()


def test_arming_a_guard_that_stopped_reading_says_so() -> None:
    """A full pipe fails at once instead of blocking the holder of plaintext."""
    read_fd, write_fd = os.pipe()
    guard = Guard(write_fd)

    def arm_for_ever() -> None:
        while True:
            guard.arm(1)

    with pytest.raises(GuardGone):
        arm_for_ever()
    guard.close()
    os.close(read_fd)

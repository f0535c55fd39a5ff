"""Nothing of a process reaches a disk when it crashes, or when memory is short: no core file, no swap."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from broker import hardening
from broker.forensics.processes import descendants, name_of
from broker.frames import KEY_BYTES, Hardening, Memory
from broker.settings import Settings
from tests.integration.test_keyholder_memory import needs_hidden_pages
from tests.keyholder_process import KeyholderProcess
from tests.stack import environment_of
from tests.up_process import lethe, plain_environment

WITHIN_S = 40.0
KINDS = ("broker.keyholder", "broker", "workers", "workers.images.nursery")
CAPACITY = 1024
PATTERN = Path("/proc/sys/kernel/core_pattern")


_prctl = ctypes.CDLL(None).prctl
_PR_SET_PDEATHSIG = 1


def allow_cores() -> None:
    """What a careless machine does, in a child that is to run a program: cores of any size. It ends with the tests."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)  # die_with_parent() would forbid cores for good
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


@contextmanager
def running(*commands: tuple[str, ...], env: dict[str, str], cwd: Path) -> Generator[Callable[[], dict[str, int]]]:
    """Run `lethe …` in a directory where cores may be left; what is yielded says which processes there are."""
    started = [
        subprocess.Popen(lethe(*command), env=env, cwd=cwd, stderr=subprocess.DEVNULL, preexec_fn=allow_cores)  # noqa: PLW1509
        for command in commands
    ]

    def found() -> dict[str, int]:
        pids = {pid for process in started for pid in (process.pid, *descendants(process.pid))}
        return {name_of(pid).rpartition(" (")[0]: pid for pid in pids}

    try:
        yield found
    finally:
        for process in started:
            process.terminate()
        for process in started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def core_limit(pid: int) -> list[str]:
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in limits if line.startswith("Max core file size")).split()[4:6]


def is_undumpable(pid: int) -> bool:
    """What the kernel says of a process that has another user than root; others say it of themselves (the posture)."""
    return Path(f"/proc/{pid}/environ").stat().st_uid == 0 != int(status_of(pid)["Uid"].split()[0])


def status_of(pid: int) -> dict[str, str]:
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: text.strip() for name, _, text in lines}


def leaves_a_core(cwd: Path) -> bool:
    """Whether a process that is nobody's leaves one in its directory when it is allowed to."""
    code = "import os; os.abort()"
    subprocess.run([sys.executable, "-c", code], cwd=cwd, preexec_fn=allow_cores, check=False)
    found = cores(cwd)
    for path in found:
        path.unlink()
    return bool(found)


def cores(cwd: Path) -> list[Path]:
    name = PATTERN.read_text().strip().partition("%")[0] or "core"
    return list(cwd.glob(f"{Path(name).name}*"))


def has_ended(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True


@pytest.mark.parametrize("crash", [signal.SIGABRT, signal.SIGSEGV])
def test_a_process_that_crashes_leaves_no_core(settings: Settings, tmp_path: Path, crash: signal.Signals) -> None:
    """Every process that holds a picture or a key, and what guards it, started where cores of any size are allowed."""
    cwd, socket = tmp_path / "cwd", tmp_path / "k.sock"
    cwd.mkdir()
    if PATTERN.read_text().startswith("core") and resource.getrlimit(resource.RLIMIT_CORE)[1]:
        assert leaves_a_core(cwd), "this machine leaves cores where a process runs"
    env = plain_environment(**environment_of(msgspec.structs.replace(settings, keyholder_socket=str(socket))))
    keyholder = ("keyholder", "--socket", str(socket), "--capacity", str(CAPACITY))
    with running(keyholder, ("broker",), ("work", "gpu"), env=env, cwd=cwd) as found:
        wait_until(lambda: found().keys() >= {*KINDS, "guard of broker", "guard of workers"})
        assert {name: limit for name, pid in found().items() if (limit := core_limit(pid)) != ["0", "0"]} == {}
        if os.geteuid() == 0:
            wait_until(lambda: is_undumpable(found()["workers.images.nursery"]))
        for kind in reversed(KINDS):  # whom a worker started goes before it
            pid = found()[kind]
            os.kill(pid, crash)
            wait_until(lambda pid=pid: has_ended(pid))
    assert cores(cwd) == []


def test_a_disk_to_swap_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A swap device on a disk makes `no_swap` untrue, unless the container's limit leaves nothing to swap."""
    swaps, limit = tmp_path / "swaps", tmp_path / "limit"
    monkeypatch.setattr(hardening, "SWAPS", swaps)
    monkeypatch.setattr(hardening, "SWAP_LIMIT", limit)
    assert Hardening.NO_SWAP not in hardening.observed(), "what cannot be read is not so"
    swaps.write_text("Filename\tType\tSize\tUsed\tPriority\n")
    assert Hardening.NO_SWAP in hardening.observed()
    swaps.write_text("Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 8 0 -2\n")
    assert Hardening.NO_SWAP not in hardening.observed()
    limit.write_text("0\n")
    assert Hardening.NO_SWAP in hardening.observed()


@pytest.mark.parametrize("memory", [pytest.param(Memory.MEMFD_SECRET, marks=needs_hidden_pages), Memory.MLOCK])
def test_the_keyholder_s_pages_are_locked_and_in_no_dump(tmp_path: Path, memory: Memory) -> None:
    """The kernel says so: room for every key lies in pages that are never swapped (`lo`) and never dumped (`dd`)."""
    keyholder = KeyholderProcess(tmp_path / "k.sock", "--memory", memory, "--capacity", str(CAPACITY))
    try:
        assert largest_locked_kib(keyholder.running.pid) * 1024 >= CAPACITY * KEY_BYTES
    finally:
        keyholder.stop()


def largest_locked_kib(pid: int) -> int:
    """The largest stretch of memory with both flags."""
    largest = size_kib = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *words = line.split()
        if name == "Size:":
            size_kib = int(words[0])
        elif name == "VmFlags:" and {"lo", "dd"} <= set(words):
            largest = max(largest, size_kib)
    return largest

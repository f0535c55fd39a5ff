"""Where it was measured."""

import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.report import Machine


def describe(directory: Path, arguments: Sequence[str], *, beside: str = "") -> Machine:
    """Describe this machine as it is before anything is started."""
    load = " · ".join(f"{value:.2f}" for value in os.getloadavg())
    return Machine(
        facts={
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "command": f"`{shlex.join(['python', '-m', 'bench', *arguments])}`",
            "commit": _commit(),
            "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
            "kernel": platform.release(),
            "python": platform.python_version(),
            "file system of blobs and database": _file_system(directory),
            "load average at start (1, 5, 15 min)": load,
            **({"beside it": beside} if beside else {}),
        }
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(directory: Path) -> str:
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, name, *_ = line.split()
        if directory.absolute().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def _commit() -> str:
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], check=False, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def peak_rss_bytes(pid: int) -> int:
    """Return the most memory that a process has had, as the kernel counts it (VmHWM)."""
    return _status_bytes(pid, "VmHWM:")


def tree_pss_bytes(pid: int) -> int:
    """Return the memory of a process and all below it, every shared page divided among those that have it (PSS)."""
    line = next(line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(line.split()[1]) * 1024 + sum(tree_pss_bytes(int(child)) for child in children)


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0

"""Examines the machine: Python, C library, kernel features, limits, swap, core dumps, heap and clock."""

import ctypes
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker.doctor.findings import Finding, note, ok, problem, warning
from broker.frames import KEY_BYTES
from broker.guard import hardened
from broker.hardening import SWAPS, disks_in
from broker.keyholder import DEFAULT_CAPACITY
from broker.prctl import landlock_version
from broker.settings import inherited_environment

_PYTHONS: Final = ((3, 11), (3, 14))
_OLDEST_GLIBC: Final = (2, 28)
_SYS_MEMFD_SECRET: Final = 447
_BUILT_IN: Final = datetime(2025, 1, 1, tzinfo=UTC)

_libc = ctypes.CDLL(None, use_errno=True)


def machine() -> Iterator[Finding]:
    """Look at everything that the machine decides."""
    yield python(sys.version_info[:2])
    yield c_library(*platform.libc_ver())
    yield secret_pages()
    yield seccomp(Path("/proc/self/status").read_text())
    yield landlock()
    yield lockable_memory(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
    yield swap(SWAPS.read_text())
    yield core_dumps(Path("/proc/sys/kernel/core_pattern").read_text().strip())
    yield freed_heap()
    yield clock(datetime.now(UTC))


def python(version: tuple[int, int]) -> Finding:
    """Lethe is tested on some versions alone."""
    name = f"Python {version[0]}.{version[1]}"
    if _PYTHONS[0] <= version <= _PYTHONS[1]:
        return ok(name)
    return problem(f"{name} is not supported", "install Python 3.11 to 3.14 and make the environment anew with it")


def c_library(name: str, version: str) -> Finding:
    """Freed memory is overwritten by glibc, and by no other C library."""
    if name != "glibc":
        return problem(
            f"the C library is {name or 'not glibc'}: what Lethe frees would not be overwritten",
            "use a distribution with glibc 2.28 or newer (Debian, Ubuntu, Fedora, RHEL), not musl",
        )
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_GLIBC:
        return problem(f"glibc {version} is too old", "use a distribution with glibc 2.28 or newer")
    return ok(f"glibc {version}")


def secret_pages() -> Finding:
    """Ask the kernel for memory that not even root can read."""
    fd = int(_libc.syscall(_SYS_MEMFD_SECRET, os.O_CLOEXEC))
    if fd < 0:
        return warning(
            "the kernel has no memfd_secret: keys lie in locked pages, which root can read",
            "use Linux 5.14 or newer with CONFIG_SECRETMEM; before 6.5, boot with secretmem.enable=1",
        )
    os.close(fd)
    return ok("memfd_secret: keys lie in pages that nobody else can read")


def seccomp(status: str) -> Finding:
    """Pictures are decoded in children that may make few system calls."""
    if "Seccomp:" in status:
        return ok("seccomp")
    return problem(
        "the kernel has no seccomp: hostile pictures would be decoded with fewer fences",
        "use a kernel with CONFIG_SECCOMP_FILTER, or a container runtime that passes it on",
    )


def landlock() -> Finding:
    """A second fence around the same children."""
    version = landlock_version()
    if version >= 1:
        return ok(f"landlock, version {version}")
    return note("no landlock: the children that decode pictures are fenced in by seccomp alone")


def lockable_memory(limit_bytes: int) -> Finding:
    """Keys must not be swapped out, so their pages are locked."""
    needed_bytes = 2 * DEFAULT_CAPACITY * KEY_BYTES
    if limit_bytes in (resource.RLIM_INFINITY, -1) or limit_bytes >= needed_bytes:
        return ok("enough memory may be locked for keys")
    return warning(
        f"only {limit_bytes // 1024} KiB may be locked (RLIMIT_MEMLOCK): fewer keys, or keys that swap",
        f"raise it to {needed_bytes // 1024} KiB: LimitMEMLOCK= in systemd, ulimit -l in a shell, ulimits in compose",
    )


def swap(table: str) -> Finding:
    """A worker's picture may be swapped out; on a disk it would stay."""
    on_disk = disks_in(table)
    if not on_disk:
        return ok("no swap on a disk")
    return warning(
        f"swap is on ({', '.join(on_disk)}): a picture in a worker's memory can reach the disk",
        "swapoff -a, or swap on zram, or on a device encrypted with a random key",
    )


def core_dumps(pattern: str) -> Finding:
    """Every process of Lethe refuses dumps; a dump of anything else is not its business."""
    if pattern.startswith("|"):
        program = pattern[1:].split(maxsplit=1)[0]
        return note(f"core dumps are piped to {program}; Lethe's processes are undumpable, so it gets none of them")
    return ok("core dumps are off for Lethe's processes")


def freed_heap() -> Finding:
    """Start a process as Lethe does, and look at what its heap keeps."""
    code = "from broker.secret_memory import heap_is_perturbed; print(heap_is_perturbed())"
    result = subprocess.run(  # noqa: S603 -- our own Python
        [sys.executable, "-c", code], env=hardened(inherited_environment()), capture_output=True, text=True, check=False
    )
    if result.stdout.strip() == "True":
        return ok("freed memory is overwritten")
    return problem(
        "freed memory is not overwritten: glibc's tunables have no effect here",
        "take LD_PRELOAD (another malloc) away, and start Lethe by its own commands",
    )


def clock(now: datetime) -> Finding:
    """Receipts state times."""
    if now > _BUILT_IN:
        return ok(f"the clock says {now:%Y-%m-%d %H:%M} UTC")
    return problem(f"the clock says {now:%Y-%m-%d}", "set it, and keep it right with chrony or systemd-timesyncd")

"""
The fence around one decoder: resource limits, no new privileges, landlock, and a short list of system calls.

`enter` is one way and for the calling process only. It has no file, socket or process of its own afterwards:
memory that was mapped before, and one descriptor to write the verdict to.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
from pathlib import Path
from typing import Final

import msgspec

from broker.prctl import LANDLOCK_CREATE, landlock_version
from workers.images.calls import ALLOWED, CLONE, CLONE3, REFUSED, WRITE
from workers.images.errors import SandboxUnavailable

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2

_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ALLOW: Final = 0x7FFF0000
_EPERM: Final = 1
_ENOSYS: Final = 38

# BPF: load a word of seccomp_data, jump if equal or not below, return.
_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_NOT_BELOW: Final = 0x35
_RETURN: Final = 0x06
_AT_NUMBER: Final = 0
_AT_ARCH: Final = 4
_AT_FIRST_ARGUMENT: Final = 16  # low word; both machines are little-endian
_X32_BIT: Final = 0x40000000

_LANDLOCK_RESTRICT: Final = 446
_THREAD_FLAGS: Final = (0x3D0F00, 0x7D0F00)  # exactly what glibc and musl pass for a thread, nothing for a process


class _Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine type: what the kernel calls it, and which column of the call lists is its own."""

    audit_arch: int
    column: int


_MACHINES: Final = {
    "x86_64": _Machine(audit_arch=0xC000003E, column=0),
    "aarch64": _Machine(audit_arch=0xC00000B7, column=1),
}

_libc = ctypes.CDLL(None, use_errno=True)


_ANSWERS: Final = (
    (ALLOWED.values(), _ALLOW),
    (REFUSED.values(), _ERRNO | _EPERM),
    ((CLONE3,), _ERRNO | _ENOSYS),
)


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """How much a sandboxed process may use beyond what it has mapped when it enters."""

    memory_bytes: int
    cpu_s: int
    verdict_fd: int  # the only descriptor that it may write to
    has_threads: bool = False  # libde265 cannot do without one; a thread is in the same fence and ends with the process


def enter(fence: Fence) -> None:
    """Fence the calling process in for the rest of its life; raise SandboxUnavailable if the kernel cannot."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise SandboxUnavailable(f"no system call list for {platform.machine()}")
    mapped_pages = int(Path("/proc/self/statm").read_bytes().split()[0])
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _lock_files_and_ports()
    _limit(mapped_pages * resource.getpagesize() + fence.memory_bytes, fence.cpu_s)
    if not fence.has_threads:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # counts all threads of the user, so it is none or any
    _filter_calls(_program(machine, fence))


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, and hide its memory from processes of the same user."""
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent_pid:
        os._exit(1)  # the parent ended before the kernel was asked


def _prctl(option: int, value: int, pointer: int = 0) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(pointer), 0, 0) != 0:
        raise SandboxUnavailable(f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def _limit(memory_bytes: int, cpu_s: int) -> None:
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # noqa: PLW2901 - an inherited limit stays
        resource.setrlimit(what, (most, most))


def _lock_files_and_ports() -> None:
    """Landlock with no rule at all: no path and no port, should the call filter ever have a hole."""
    version = landlock_version()
    if version < 1:
        return  # the kernel has no landlock; the call filter stands alone
    file_rights = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    ports, scopes = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    words = [(1 << file_rights) - 1, ports, scopes][: 1 + (version >= 4) + (version >= 6)]
    rules = struct.pack(f"={len(words)}Q", *words)
    ruleset_fd = _libc.syscall(LANDLOCK_CREATE, rules, ctypes.c_size_t(len(rules)), 0)
    if ruleset_fd < 0 or _libc.syscall(_LANDLOCK_RESTRICT, ruleset_fd, 0) != 0:
        raise SandboxUnavailable(f"landlock: {os.strerror(ctypes.get_errno())}")
    os.close(ruleset_fd)


def _filter_calls(code: list[bytes]) -> None:
    program = ctypes.create_string_buffer(b"".join(code), 8 * len(code))
    header = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(program))
    pointer = ctypes.create_string_buffer(header, len(header))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(pointer))


def _program(machine: _Machine, fence: Fence) -> list[bytes]:
    """Check the machine type, then number after number; whatever is on no list kills the process."""
    code = [
        _word(_LOAD, _AT_ARCH),
        _word(_EQUAL, machine.audit_arch, skip_if_true=1),
        _word(_RETURN, _KILL_PROCESS),
        _word(_LOAD, _AT_NUMBER),
        _word(_NOT_BELOW, _X32_BIT, skip_if_false=1),
        _word(_RETURN, _KILL_PROCESS),
    ]
    for calls, answer in _ANSWERS:
        for number in sorted(numbers[machine.column] for numbers in calls):
            code += [_word(_EQUAL, number, skip_if_false=1), _word(_RETURN, answer)] if number >= 0 else []
    code += _if_first_argument(WRITE[machine.column], fence.verdict_fd)
    for flags in _THREAD_FLAGS if fence.has_threads else ():
        code += _if_first_argument(CLONE[machine.column], flags)
    return [*code, _word(_RETURN, _KILL_PROCESS)]


def _if_first_argument(number: int, value: int) -> list[bytes]:
    """Allow one call with this first argument; go on with the number loaded otherwise."""
    return [
        _word(_EQUAL, number, skip_if_false=4),
        _word(_LOAD, _AT_FIRST_ARGUMENT),
        _word(_EQUAL, value, skip_if_false=1),
        _word(_RETURN, _ALLOW),
        _word(_LOAD, _AT_NUMBER),
    ]


def _word(code: int, value: int, *, skip_if_true: int = 0, skip_if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, skip_if_true, skip_if_false, value)

"""
What hostile code in a decoder would try. Each attack returns True where it got through.

`python -m tests.attacks MODE UID` forks a child per attack and prints how each ended; MODE is `open` (no fence: shows
that an attack works at all), `fenced` or `threads` (the fence that allows threads).
"""

import ctypes
import json
import mmap
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from workers.images.sandbox import Fence, enter

SECRET_NAME: Final = "LETHE_TEST_SECRET"
BREACHED: Final = 42
VERDICT_FD: Final = 3

_libc: Final = ctypes.CDLL(None, use_errno=True)
_IS_ARM: Final = platform.machine() == "aarch64"
_BUFFER: Final = ctypes.create_string_buffer(64)
_SCRATCH: Final = os.environ.get("TMPDIR", "/tmp")  # tempfile would try it out, by a file of its own


def _number(x86: int, arm: int) -> int:
    return arm if _IS_ARM else x86


def _call(number: int, *arguments: int) -> bool:
    return _libc.syscall(number, *(ctypes.c_ulong(argument) for argument in arguments)) >= 0


def _read_file() -> bool:
    return Path("/etc/passwd").read_bytes() != b""


def _write_file() -> bool:
    file = Path(_SCRATCH, f"lethe-breach-{os.getpid()}")
    file.write_bytes(b"x")
    file.unlink()
    return True


def _list_folder() -> bool:
    return bool(os.listdir("/"))  # noqa: PTH208 - the plain call


def _read_environment_file() -> bool:
    return Path("/proc/self/environ").read_bytes() != b""


def _read_memory_file() -> bool:
    return Path("/proc/self/maps").read_bytes() != b""


def _environment() -> bool:
    get = _libc.getenv
    get.restype = ctypes.c_char_p
    return SECRET_NAME in os.environ or get(SECRET_NAME.encode()) is not None or "PATH" in os.environ


def _descriptors() -> bool:
    """Find any descriptor beside the verdict's: closing one that is not there fails."""
    return any(_libc.close(fd) == 0 for fd in range(256) if fd != VERDICT_FD)


def _other_descriptor() -> bool:
    return os.write(1, b"") == 0


def _socket(family: socket.AddressFamily) -> Callable[[], bool]:
    def attack() -> bool:
        socket.socket(family, socket.SOCK_STREAM).close()
        return True

    return attack


def _socket_pair() -> bool:
    return len(socket.socketpair()) == 2


def _fork() -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


def _clone_process() -> bool:
    if _libc.syscall(_number(56, 220), ctypes.c_ulong(signal.SIGCHLD), 0, 0, 0, 0) == 0:
        os._exit(BREACHED)
    return True


def _exec() -> bool:
    os.execv("/bin/sh", ["sh", "-c", f"exit {BREACHED}"])


def _signal_parent() -> bool:
    os.kill(os.getppid(), 0)
    return True


def _much_memory() -> bool:
    with mmap.mmap(-1, 8 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000):  # without reserve
        return True


def _memory_file() -> bool:
    return os.memfd_create("breach") >= 0


ATTACKS: Final[dict[str, Callable[[], bool]]] = {
    "read_file": _read_file,
    "write_file": _write_file,
    "list_folder": _list_folder,
    "read_environment_file": _read_environment_file,
    "read_memory_file": _read_memory_file,
    "environment": _environment,
    "other_descriptor": _other_descriptor,
    "descriptors": _descriptors,
    "socket_unix": _socket(socket.AF_UNIX),
    "socket_inet": _socket(socket.AF_INET),
    "socket_pair": _socket_pair,
    "fork": _fork,
    "clone_process": _clone_process,
    "exec": _exec,
    "signal_parent": _signal_parent,
    "much_memory": _much_memory,
    "memory_file": _memory_file,
    "pipe": lambda: len(os.pipe()) == 2,
    "ptrace": lambda: _call(_number(101, 117), 0, 0, 0, 0),
    "unshare": lambda: _call(_number(272, 97), 0x200),
    "keyring": lambda: _call(_number(250, 219), 0, 0xFFFFFFFC, 1, 0),
    "set_name": lambda: _call(_number(157, 167), 15, ctypes.addressof(_BUFFER)),
    "event_fd": lambda: _call(_number(290, 19), 0, 0),
    "personality": lambda: _call(_number(135, 92), 0xFFFFFFFF),
    "own_group": lambda: _call(_number(109, 154), 0, 0),
    "raise_limit": lambda: _call(_number(302, 261), 0, 7, 0, ctypes.addressof(_BUFFER)),
}


def run(name: str) -> bool:
    """Try one attack; an error that Python sees means that it was refused."""
    try:
        return ATTACKS[name]()
    except (OSError, MemoryError, ValueError):
        return False


def _outcome(name: str, mode: str, uid: int) -> str:
    pid = os.fork()
    if pid == 0:
        if uid != os.geteuid():
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        if mode != "open":
            os.dup2(1, VERDICT_FD)
            os.closerange(0, VERDICT_FD)
            os.closerange(VERDICT_FD + 1, 1024)
            os.environ.clear()
            fence = Fence(memory_bytes=1 << 28, cpu_s=5, verdict_fd=VERDICT_FD, has_threads=mode == "threads")
            enter(fence)
        os._exit(BREACHED if run(name) else 0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {0: "refused", BREACHED: "breached", -signal.SIGSYS: "killed"}.get(status, f"status {status}")


if __name__ == "__main__":
    _mode, _uid = sys.argv[1], int(sys.argv[2])
    _outcomes = {attack: _outcome(attack, _mode, _uid) for attack in ATTACKS}
    sys.stderr.write(json.dumps(_outcomes))

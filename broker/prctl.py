"""Process controls of Linux that Python's os module does not offer, and the environment of a heap that forgets."""

import ctypes
import os
import resource
import threading
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG = 1
_PR_GET_PDEATHSIG = 2
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

LANDLOCK_CREATE: Final = 444  # the same on every machine, as are all calls added since 2019
_LANDLOCK_VERSION = 1

# Freed heap is overwritten; the C library and Python read these before anything of ours runs.
FORGETFUL_HEAP: Final = {
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.perturb=165",
    "PYTHONMALLOC": "malloc",
}

# Resolved at import: a forked child must not load anything before it execs.
_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl


def die_with_parent(signum: int) -> Callable[[], None]:
    """Return a preexec function: the child gets `signum` when this process ends, gains no privileges, dumps no core.

    The kernel watches the *thread* that forked, not the process: hence from the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children that die with us are started from the main thread")
    parent = os.getpid()

    def in_child() -> None:
        if _prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0) or _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            os._exit(126)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # The parent may have died between fork and prctl; nothing would tell us any more.
        if os.getppid() != parent:
            os._exit(126)

    return in_child


def soften_death_with_parent(signum: int) -> None:
    """Where our end is tied to our parent's, get `signum`, which can be acted on, instead of what the parent chose."""
    chosen = ctypes.c_int()
    _check(_prctl(_PR_GET_PDEATHSIG, ctypes.byref(chosen), 0, 0, 0))
    if chosen.value:
        _check(_prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0))


def refuse_dumps() -> None:
    """Make this process undumpable: no core file, no ptrace and no /proc/PID/mem for others of the same user."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _check(_prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def is_dumpable() -> bool:
    """Say whether this process may be dumped, and traced by others of the same user."""
    return _prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none can slip away."""
    _check(_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def landlock_version() -> int:
    """Ask the kernel for its version of landlock; below 1 where it has none."""
    return int(_libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_VERSION))

"""Memory that can forget: buffers that are overwritten, pages that are hard to read, and a heap that keeps nothing."""

import ctypes
import mmap
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from broker.frames import Memory
from broker.prctl import FORGETFUL_HEAP, refuse_dumps

_PERTURBED_BYTE = 165 ^ 0xFF  # what glibc fills fresh memory with; freed memory gets 165 itself
_SYS_MEMFD_SECRET = 447  # the same on every architecture
_ZEROS = bytes(64 * 1024)
_SMALLEST_BYTES = 32 * 1024

_libc = ctypes.CDLL(None, use_errno=True)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]
_libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def wipe(buffer: bytearray | memoryview | mmap.mmap) -> None:
    """Overwrite every byte with zero, in place."""
    with memoryview(buffer) as view, view.cast("B") as flat:
        for start in range(0, len(flat), len(_ZEROS)):
            stop = min(start + len(_ZEROS), len(flat))
            flat[start:stop] = _ZEROS[: stop - start]


def random_into(buffer: bytearray | memoryview) -> None:
    """Fill with random bytes that were never a `bytes` object, which nothing could overwrite."""
    with memoryview(buffer) as view, Path("/dev/urandom").open("rb", buffering=0) as source:
        filled = 0
        while filled < len(view):
            filled += source.readinto(view[filled:]) or 0


def harden() -> None:
    """
    Make this process forget what it frees, dump no core and refuse to be traced.

    The first call replaces the process by itself with glibc's perturbation switched on, since that is read before
    main(): call it before anything is opened or started. Later calls, and the second life, only set the limits.
    """
    environment = os.environ  # noqa: TID251 - not a setting: the C library reads these names before Python runs
    missing = {name: value for name, value in FORGETFUL_HEAP.items() if value not in environment.get(name, "")}
    if missing:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**environment, **missing})  # noqa: S606 - itself
    refuse_dumps()


def heap_is_perturbed() -> bool:
    """Say whether the C library really overwrites what is freed, as harden() asked of it."""
    size_bytes = 4096
    address = _libc.malloc(size_bytes)
    try:
        return ctypes.string_at(address, size_bytes) == bytes([_PERTURBED_BYTE]) * size_bytes
    finally:
        _libc.free(address)


class SecretPages:
    """
    One zeroed stretch of memory for keys, as well kept as this machine allows; `memory` says how well.

    Hidden pages count against RLIMIT_MEMLOCK, so that `view` may be shorter than asked for: fewer keys that nobody can
    read are worth more than many that root can.
    """

    def __init__(self, size_bytes: int, *, kinds: Sequence[Memory] = tuple(Memory)) -> None:
        self._map, self.memory = _map_pages(size_bytes, kinds)
        for advice in (mmap.MADV_DONTFORK, mmap.MADV_DONTDUMP):
            self._map.madvise(advice)
        self.view = memoryview(self._map)

    def close(self) -> None:
        """Overwrite the pages and give them back."""
        wipe(self.view)
        self.view.release()
        self._map.close()


def _map_pages(size_bytes: int, kinds: Sequence[Memory]) -> tuple[mmap.mmap, Memory]:
    if Memory.MEMFD_SECRET in kinds and (hidden := _hidden_pages(size_bytes)):
        return hidden, Memory.MEMFD_SECRET
    pages = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
    if Memory.MLOCK in kinds and _locked(pages):
        return pages, Memory.MLOCK
    if Memory.PLAIN in kinds:
        return pages, Memory.PLAIN
    pages.close()
    msg = f"this machine has no memory of kind {', '.join(kinds)}"
    raise OSError(msg)


def _hidden_pages(size_bytes: int) -> mmap.mmap | None:
    fd = _libc.syscall(_SYS_MEMFD_SECRET, os.O_CLOEXEC)
    if fd < 0:
        return None
    try:
        return _largest_mapping(fd, size_bytes)
    finally:
        os.close(fd)


def _largest_mapping(fd: int, size_bytes: int) -> mmap.mmap | None:
    os.ftruncate(fd, size_bytes)
    while True:
        try:
            return mmap.mmap(fd, size_bytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError:
            size_bytes //= 2
        if size_bytes < _SMALLEST_BYTES:
            return None


def _locked(pages: mmap.mmap) -> bool:
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    return _libc.mlock(address, len(pages)) == 0

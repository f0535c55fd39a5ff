"""Shared memory that pictures are held in, and how it is emptied."""

import contextlib
import errno
import os
from collections.abc import Generator
from typing import Final

_ZEROS: Final = bytes(1 << 18)


@contextlib.contextmanager
def output_memory() -> Generator[int]:
    """Make shared memory whose descriptor the caller keeps; on any error it is overwritten and closed."""
    fd = os.memfd_create("lethe-output", os.MFD_CLOEXEC)
    try:
        yield fd
    except BaseException:
        try:
            overwrite(fd)
        finally:
            os.close(fd)
        raise


def append(fd: int, data: bytes) -> None:
    """Write at the end, whole."""
    at = os.fstat(fd).st_size
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done:], at + done)


def overwrite(fd: int) -> None:
    """Overwrite what was written, and nothing else: the rest takes no room."""
    # Written, not mapped: a fault for each page costs several times as much as the zeros.
    at = 0
    while (start := _next_written(fd, at)) is not None:
        at, end = start, os.lseek(fd, start, os.SEEK_HOLE)
        while at < end:
            at += os.pwrite(fd, _ZEROS[: end - at], at)


def _next_written(fd: int, at: int) -> int | None:
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return None
        raise

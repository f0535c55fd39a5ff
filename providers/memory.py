"""Shared memory that outputs are made in."""

import contextlib
import os
from collections.abc import Generator
from typing import Final

_ZEROS: Final = bytes(1 << 16)


@contextlib.contextmanager
def output_memory() -> Generator[int]:
    """Make shared memory whose descriptor the caller keeps; on any error it is overwritten and closed."""
    fd = os.memfd_create("lethe-output", os.MFD_CLOEXEC)
    try:
        yield fd
    except BaseException:
        try:
            _overwrite(fd)
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


def _overwrite(fd: int) -> None:
    at, size_bytes = 0, os.fstat(fd).st_size
    while at < size_bytes:
        at += os.pwrite(fd, _ZEROS[: size_bytes - at], at)

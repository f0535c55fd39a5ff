"""Stand-ins for what makes processes forget: no guard, no overwriting; the heap is the C library's usual one."""

import mmap

from broker.guard import Guard


class NoGuard(Guard):
    """Takes the place of a guard: nobody reads deadlines."""

    def __init__(self) -> None:
        """Take no pipe: there is none."""

    def arm(self, deadline_boottime_ns: int) -> None:
        """Go on without a deadline."""

    def disarm(self) -> None:
        """Go on without a deadline."""

    @property
    def is_there(self) -> bool:
        """Nobody is."""
        return False

    def close(self) -> None:
        """There is nothing to close."""


def keep_buffer(buffer: bytearray | memoryview | mmap.mmap) -> None:
    """Take the place of wipe()."""
    del buffer


def keep_shared(fd: int) -> None:
    """Take the place of overwrite()."""
    del fd

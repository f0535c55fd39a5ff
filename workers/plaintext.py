"""What a worker holds of an upload in the clear: shared memory that is overwritten before it is let go, and a key."""

import mmap
import os
from collections.abc import Generator
from contextlib import contextmanager

from providers.memory import overwrite


class Plaintext:
    """Descriptors of shared memory that hold bytes of one job; leaving the block overwrites what is still there."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def __enter__(self) -> "Plaintext":
        return self

    def __exit__(self, *exc: object) -> None:
        for descriptor in list(self._descriptors):
            self.destroy(descriptor)

    def blank(self, size_bytes: int) -> int:
        """Make shared memory of a size, and keep it until it is destroyed."""
        descriptor = self.keep(os.memfd_create("lethe-upload", os.MFD_CLOEXEC))
        os.ftruncate(descriptor, size_bytes)
        return descriptor

    def keep(self, descriptor: int) -> int:
        """Answer for a descriptor that somebody else made."""
        self._descriptors.append(descriptor)
        return descriptor

    def destroy(self, descriptor: int) -> None:
        """Overwrite, give the memory back, close; does nothing for what is destroyed already."""
        if descriptor not in self._descriptors:
            return
        self._descriptors.remove(descriptor)
        let_go(descriptor)


def let_go(descriptor: int) -> None:
    """Overwrite shared memory, give it back, and close its descriptor."""
    try:
        overwrite(descriptor)
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


@contextmanager
def mapped(descriptor: int, *, writable: bool = False) -> Generator[memoryview, None, None]:
    """Lend the shared memory behind a descriptor; an empty one is an empty view."""
    size_bytes = os.fstat(descriptor).st_size
    if size_bytes == 0:
        yield memoryview(b"")
        return
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    with mmap.mmap(descriptor, size_bytes, access=access) as memory, memoryview(memory) as view:
        yield view

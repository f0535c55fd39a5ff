"""What has to be overwritten in a file so that it is clean: a few bytes, and zeros behind them."""

import mmap
from typing import Final

import msgspec

_STEP: Final = 1 << 16
_ZEROS: Final = bytes(_STEP)


class Edit(msgspec.Struct, frozen=True):
    """At `at`, `size_bytes` have to be `head` and then zeros."""

    at: int
    size_bytes: int
    head: bytes = b""

    def make(self, data: mmap.mmap) -> None:
        """Overwrite."""
        data[self.at : self.at + len(self.head)] = self.head
        for at, size in self._zeros():
            data[at : at + size] = _ZEROS[:size]

    def is_made(self, data: mmap.mmap) -> bool:
        """Whether nothing is left to be overwritten."""
        if data[self.at : self.at + len(self.head)] != self.head:
            return False
        return all(data[at : at + size] == _ZEROS[:size] for at, size in self._zeros())

    def _zeros(self) -> list[tuple[int, int]]:
        start, end = self.at + len(self.head), self.at + self.size_bytes
        return [(at, min(_STEP, end - at)) for at in range(start, end, _STEP)]

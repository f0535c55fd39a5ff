"""Thousands of keys or words, looked for at once, by eight bytes of each that nothing else looks like."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

NEEDLE_BYTES = 8
_AT_ONCE_BYTES = 16 * 1024 * 1024


def halves(keys: Iterable[bytes]) -> Iterator[bytes]:
    """Needles for keys: whichever half of one is left somewhere is found."""
    for key in keys:
        yield key[:NEEDLE_BYTES]
        yield key[16 : 16 + NEEDLE_BYTES]


class Needles:
    """The first eight bytes of each of those that are looked for."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        self._needles = {needle[:NEEDLE_BYTES] for needle in needles}
        # Whether any needle has this pair of bytes at 0, 2, 4, 6: almost all memory falls through one of the four.
        self._pairs = [np.zeros(1 << 16, dtype=np.bool_) for _ in range(0, NEEDLE_BYTES, 2)]
        for needle in self._needles:
            for number, pair in enumerate(self._pairs):
                pair[int.from_bytes(needle[2 * number : 2 * number + 2], "little")] = True

    def found_in(self, parts: Iterable[bytes]) -> set[bytes]:
        """Which needles stand somewhere in these stretches of bytes."""
        return {needle for part in parts for piece in _pieces(part) for needle in self._found(piece)}

    def _found(self, piece: bytes) -> Iterator[bytes]:
        if len(piece) < NEEDLE_BYTES:
            return
        values: NDArray[np.uint16] = np.frombuffer(piece, dtype=np.uint8).astype(np.uint16)
        pairs = values[:-1] | (values[1:] << 8)
        at = np.flatnonzero(self._pairs[0][pairs[: len(piece) - NEEDLE_BYTES + 1]])
        for number, pair in enumerate(self._pairs[1:], start=1):
            at = at[pair[pairs[at + 2 * number]]]
        for start in at.tolist():
            if (candidate := piece[start : start + NEEDLE_BYTES]) in self._needles:
                yield candidate


def _pieces(part: bytes) -> Iterator[bytes]:
    for start in range(0, len(part), _AT_ONCE_BYTES):
        yield part[start : start + _AT_ONCE_BYTES + NEEDLE_BYTES]

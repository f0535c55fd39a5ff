"""Thousands of keys, looked for at once: whichever half of one is left somewhere is found."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

NEEDLE_BYTES = 8
_AT_ONCE_BYTES = 16 * 1024 * 1024


class Needles:
    """The first eight bytes of both halves of every key; random, so that nothing else looks like one."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        halves = ((key[:NEEDLE_BYTES], key[16 : 16 + NEEDLE_BYTES]) for key in keys)
        self._needles = {needle for pair in halves for needle in pair}
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

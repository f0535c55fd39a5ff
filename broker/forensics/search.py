"""
Looks for all needles in all encodings in a stream of blocks; what lies across the border of two is found as well.

Pages that were read before, and in which nothing was found, are passed over: what was drawn later cannot be in them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from broker.forensics.encodings import Encoding, patterns
from broker.forensics.markers import Family, Place
from broker.forensics.streams import inflated, places

_PAGE_BYTES: Final = 4096
OVERLAP_BYTES: Final = 64 * 1024
"""So much of a compressed stream is seen at least, wherever it begins."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and how it was written down."""

    label: str
    encoding: Encoding


class Known:
    """Pages by their content, as they were read before."""

    def __init__(self) -> None:
        self._pages: set[int] = set()

    def fresh(self, blocks: Iterable[bytes], seen: set[int]) -> Iterator[bytes]:
        """Leave out pages that are known, but for those beside one that is not; note in `seen` what was there."""
        for block in blocks:
            pages = [block[at : at + _PAGE_BYTES] for at in range(0, len(block), _PAGE_BYTES)]
            digests = list(map(hash, pages))
            seen.update(digests)
            # Beyond the ends of a block there may be anything.
            news = [True, *(digest not in self._pages for digest in digests), True]
            yield b"".join(page for n, page in enumerate(pages) if news[n] or news[n + 1] or news[n + 2])

    def remember(self, pages: set[int]) -> None:
        """Know these from now on."""
        self._pages |= pages


class Quarry:
    """What is looked for: everything that begins as a family does, and keys."""

    def __init__(self, family: Family | None = None, keys: Mapping[bytes, str] | None = None) -> None:
        labels = family.labels if family else {}
        self._markers = {pattern.data: label for marker, label in labels.items() for pattern in patterns(marker)}
        self._patterns = patterns(family.beginning) if family else []
        self._keys = [(pattern, label) for key, label in (keys or {}).items() for pattern in patterns(key)]

    def look(self, blocks: Iterable[bytes]) -> Counter[Found]:
        """Count every find."""
        found: Counter[Found] = Counter()
        for window, before in windows(blocks):
            if not self._patterns:
                continue  # it is only read
            found.update(self._plain(window, before))
            for content in inflated(window, before=before):
                for inside in self._plain(content, len(content)):
                    found[Found(label=inside.label, encoding=Encoding.INFLATED)] += 1
        return found

    def _plain(self, window: bytes, before: int) -> Iterator[Found]:
        for pattern in self._patterns:
            for at in places(window, pattern.data, before):
                yield Found(label=self._label(window, at), encoding=pattern.encoding)
        for pattern, label in self._keys:
            for _ in places(window, pattern.data, before):
                yield Found(label=label, encoding=pattern.encoding)

    def _label(self, window: bytes, at: int) -> str:
        return next((label for data, label in self._markers.items() if window.startswith(data, at)), Place.PIECE)


def windows(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield each block behind the end of the one before, and how far it is to be looked at: the rest comes again."""
    kept = b""
    for block in blocks:
        window = kept + block
        before = max(0, len(window) - OVERLAP_BYTES)
        if before:
            yield window, before
        kept = window[before:]
    if kept:
        yield kept, len(kept)

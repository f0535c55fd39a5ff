"""Looks for pieces of a file in everything that a stack has written: what is plaintext would be found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

_BLOCK_BYTES: Final = 4 * 1024 * 1024
_PIECE_BYTES: Final = 24
_PIECES: Final = 16


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """How much was searched, and in which files which needles were found."""

    files: int
    size_bytes: int
    found: frozenset[tuple[bytes, str]]

    def places(self, needle: bytes) -> list[str]:
        """The files in which one needle was found."""
        return sorted(path for found, path in self.found if found == needle)


def pieces(content: bytes) -> list[bytes]:
    """Return short pieces spread over a file, so that a copy of any half of it holds some."""
    step = max(1, (len(content) - _PIECE_BYTES) // _PIECES)
    return [content[at : at + _PIECE_BYTES] for at in range(0, len(content) - _PIECE_BYTES, step)]


def search(directory: Path, needles: Sequence[bytes]) -> Search:
    """Read every regular file below a directory; one that goes away meanwhile is passed over."""
    overlap = max(len(needle) for needle in needles) - 1
    files = size = 0
    found: set[tuple[bytes, str]] = set()
    for path in directory.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            size += _search_file(path, needles, overlap, found)
        except FileNotFoundError:
            continue
        files += 1
    return Search(files=files, size_bytes=size, found=frozenset(found))


def _search_file(path: Path, needles: Sequence[bytes], overlap: int, found: set[tuple[bytes, str]]) -> int:
    size, tail = 0, b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            size += len(block)
            block = tail + block
            found.update((needle, str(path)) for needle in needles if needle in block)
            tail = block[-overlap:]
    return size

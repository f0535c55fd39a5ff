"""Finds compressed streams in any bytes (zlib, gzip, PNG, PNG in base64) and gives back what they hold."""

import base64
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Final

MOST_BYTES: Final = 4 * 1024 * 1024
"""So much of what a stream holds is looked at."""

_ZLIB: Final = re.compile(rb"\x78[\x01\x5e\x9c\xda]")  # all four in one pass: to look for each takes six times as long
_GZIP: Final = b"\x1f\x8b\x08"
_EITHER: Final = 32 + zlib.MAX_WBITS
_FIRST_STEP_BYTES: Final = 512
_STEP_BYTES: Final = 64 * 1024
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_IN_BASE64: Final = re.compile(rb"iVBORw0KGgo[A-Za-z0-9+/_-]{32,}")
_URL: Final = bytes.maketrans(b"-_", b"+/")
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_SHORTEST_BYTES: Final = 16


def inflated(window: bytes, *, before: int) -> Iterator[bytes]:
    """Yield what each stream holds that begins in the first `before` bytes; one that is cut off gives what it has."""
    view = memoryview(window)
    zlib_at = (match.start() for match in _ZLIB.finditer(window, 0, before + 1))
    for at in chain(zlib_at, places(window, _GZIP, before)):
        if len(found := _inflate(view[at:])) >= _SHORTEST_BYTES:
            yield found
    for at in places(window, _PNG, before):
        yield from _png(view[at:])
    for match in _PNG_IN_BASE64.finditer(window):
        if match.start() < before:
            text = match[0].translate(_URL)
            yield from _png(memoryview(base64.b64decode(text[: len(text) // 4 * 4])))


def places(window: bytes, data: bytes, before: int) -> Iterator[int]:
    """Yield where these bytes begin, in the first `before` bytes."""
    at = window.find(data, 0, before + len(data) - 1)
    while at >= 0:
        yield at
        at = window.find(data, at + 1, before + len(data) - 1)


def _inflate(data: memoryview) -> bytes:
    """Return what a stream holds as far as it goes; most of what looks like one ends after a few bytes."""
    stream = zlib.decompressobj(_EITHER)
    found = b""
    step = _FIRST_STEP_BYTES
    with suppress(zlib.error):
        at = 0
        while at < len(data) and not stream.eof and len(found) < MOST_BYTES:
            found += stream.decompress(data[at : at + step], MOST_BYTES - len(found))
            at, step = at + step, _STEP_BYTES
    return found


def _png(data: memoryview) -> Iterator[bytes]:
    """Yield the pixels of a picture, as they are written and as they are meant."""
    header, body = b"", b""
    for kind, content in _chunks(data):
        if kind == b"IHDR":
            header = bytes(content)
        elif kind == b"IDAT":
            body += content
    written = _inflate(memoryview(body)) if body else b""
    yield written
    if len(header) >= 10:
        width, _, depth, colour = struct.unpack_from(">IIBB", header)
        bits = depth * _CHANNELS.get(colour, 1)
        yield b"".join(_rows(written, (width * bits + 7) // 8, max(1, bits // 8)))


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = len(_PNG)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def _rows(written: bytes, row_bytes: int, step: int) -> Iterator[bytes]:
    """Undo the filters of a PNG's rows, as far as whole rows are there."""
    above = bytes(row_bytes)
    for at in range(0, len(written) - row_bytes, row_bytes + 1):
        row = bytearray(written[at + 1 : at + 1 + row_bytes])
        _undo(written[at], row, above, step)
        above = bytes(row)
        yield above


def _undo(kind: int, row: bytearray, above: bytes, step: int) -> None:
    if kind == 0:
        return
    for n, value in enumerate(row):
        left = row[n - step] if n >= step else 0
        corner = above[n - step] if n >= step else 0
        row[n] = (value + _predicted(kind, left, above[n], corner)) & 0xFF


def _predicted(kind: int, left: int, above: int, corner: int) -> int:
    match kind:
        case 1:
            return left
        case 2:
            return above
        case 3:
            return (left + above) // 2
        case _:
            guess = left + above - corner
            return min((left, above, corner), key=lambda near: abs(guess - near))

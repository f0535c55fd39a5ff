"""
Reads an encoded output segment by segment and refuses whatever is not on the allow-list.

It trusts no encoder: each file must consist of what carries pixels, and end where the picture ends.
"""

import mmap
import re
import zlib
from collections.abc import Iterator
from typing import Final

from broker.sniff import ImageKind
from workers.images.errors import ImagesError

Blob = bytes | bytearray | mmap.mmap

_JPEG_SEGMENTS: Final = frozenset([0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0])
_JFIF_BYTES: Final = 14  # without an embedded thumbnail
_AFTER_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7]", re.DOTALL)
_PNG_ORDER: Final = re.compile(rb"IHDR (PLTE )?(tRNS )?(IDAT )+IEND ")
_WEBP_LAYOUTS: Final = ((b"VP8 ",), (b"VP8L",), (b"VP8X", b"ALPH", b"VP8 "), (b"VP8X", b"VP8L"))
_WEBP_ALPHA: Final = 0x10


class UncleanOutput(ImagesError):
    """The output holds more than pixels, or is not well formed; the message names the segment type only."""


def check(data: Blob, kind: ImageKind) -> None:
    """Raise UncleanOutput unless the file is nothing but one picture of this kind."""
    try:
        _CHECKS[kind](data)
    except (IndexError, KeyError):
        raise UncleanOutput(f"{kind} breaks off") from None


def _check_jpeg(data: Blob) -> None:
    if data[:2] != b"\xff\xd8":
        raise UncleanOutput("jpeg without a start")
    at = 2
    while (marker := _marker(data, at)) != 0xD9:
        if marker not in _JPEG_SEGMENTS:
            raise UncleanOutput(f"jpeg segment {marker:02x}")
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE0 and not _is_bare_jfif(data[at + 4 : end]):
            raise UncleanOutput("jpeg application data")
        at = _after_scan(data, end) if marker == 0xDA else end
    if at + 2 != len(data):
        raise UncleanOutput("jpeg goes on after its end")


def _marker(data: Blob, at: int) -> int:
    if data[at] != 0xFF:
        raise UncleanOutput("jpeg without a marker")
    return data[at + 1]


def _is_bare_jfif(body: bytes | bytearray) -> bool:
    return body.startswith(b"JFIF\x00") and len(body) == _JFIF_BYTES and body[12:14] == b"\x00\x00"


def _after_scan(data: Blob, at: int) -> int:
    found = _AFTER_SCAN.search(data, at)
    if found is None:
        raise UncleanOutput("jpeg without an end")
    return found.start()


def _check_png(data: Blob) -> None:
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise UncleanOutput("png without a signature")
    names = b"".join(name + b" " for name in _png_chunks(data))
    if not _PNG_ORDER.fullmatch(names):
        raise UncleanOutput("png chunks")


def _png_chunks(data: Blob) -> Iterator[bytes]:
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        name, end = bytes(data[at + 4 : at + 8]), at + 8 + length
        crc = int.from_bytes(data[end : end + 4], "big")
        if end + 4 > len(data) or zlib.crc32(memoryview(data)[at + 4 : end]) != crc:
            raise UncleanOutput("png checksum")
        yield name
        at = end + 4


def _check_webp(data: Blob) -> None:
    size = int.from_bytes(data[4:8], "little")
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or size + 8 != len(data):
        raise UncleanOutput("webp frame")
    if tuple(_webp_chunks(data)) not in _WEBP_LAYOUTS:
        raise UncleanOutput("webp chunks")


def _webp_chunks(data: Blob) -> Iterator[bytes]:
    at = 12
    while at < len(data):
        name = bytes(data[at : at + 4])
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length
        if end + length % 2 > len(data) or (length % 2 and data[end] != 0):
            raise UncleanOutput("webp chunk length")
        if name == b"VP8X" and (length != 10 or data[at + 8] & ~_WEBP_ALPHA):
            raise UncleanOutput("webp features")
        yield name
        at = end + length % 2


def _check_heic(_: Blob) -> None:
    raise UncleanOutput("heic is never an output")


_CHECKS: Final = {
    ImageKind.JPEG: _check_jpeg,
    ImageKind.PNG: _check_png,
    ImageKind.WEBP: _check_webp,
    ImageKind.HEIC: _check_heic,
}

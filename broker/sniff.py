"""What the first bytes of an upload say: kind and pixel dimensions. Never decodes, never imports a codec."""

import re
import struct
from enum import StrEnum
from typing import Final

HEAD_BYTES: Final = 65_536
"""How much of an upload `dimensions` wants to see at most."""

_HEIC_BRANDS: Final = frozenset([b"heic", b"heix", b"heim", b"heis"])
_HEIF_BRANDS: Final = frozenset([b"mif1", b"msf1"])  # any codec; a HEIC brand has to stand beside them
_ISPE: Final = re.compile(rb"\x00\x00\x00\x14ispe\x00\x00\x00\x00(.{8})", re.DOTALL)

_JPEG_BARE: Final = frozenset([0x01, *range(0xD0, 0xD8)])
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_STOP: Final = frozenset([0xD8, 0xD9, 0xDA])


class ImageKind(StrEnum):
    """The formats that Lethe takes; all but HEIC it also makes."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    HEIC = "heic"

    @property
    def media_type(self) -> str:
        """The media type of this format."""
        return f"image/{self.value}"


def sniff(head: bytes) -> ImageKind | None:
    """Tell the format from the first 64 bytes; None is "not one that Lethe takes"."""
    if head.startswith(b"\xff\xd8\xff"):
        return ImageKind.JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ImageKind.PNG
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ImageKind.WEBP
    return ImageKind.HEIC if head[4:8] == b"ftyp" and _is_heic(head) else None


def dimensions(head: bytes) -> tuple[int, int] | None:
    """Read width and height as stored from the first 64 KiB, if they are told there; not yet turned by orientation."""
    kind = sniff(head)
    if kind is None:
        return None
    try:
        return _READERS[kind](head)
    except (struct.error, IndexError):
        return None


def _is_heic(head: bytes) -> bool:
    major = head[8:12]
    end = min(int.from_bytes(head[:4], "big"), 64, len(head))
    compatible = {head[at : at + 4] for at in range(16, end - 3, 4)}
    return major in _HEIC_BRANDS or (major in _HEIF_BRANDS and bool(compatible & _HEIC_BRANDS))


def _png(head: bytes) -> tuple[int, int] | None:
    if head[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", head, 16)
    return width, height


def _jpeg(head: bytes) -> tuple[int, int] | None:
    at = 2
    while head[at] == 0xFF:
        marker = head[at + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", head, at + 5)
            return width, height
        if marker in _JPEG_STOP:
            return None
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        else:
            at += 2 + max(2, int.from_bytes(head[at + 2 : at + 4], "big"))
    return None


def _webp(head: bytes) -> tuple[int, int] | None:
    chunk, body = head[12:16], head[20:30]
    if len(body) < 10:
        return None
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _heic(head: bytes) -> tuple[int, int] | None:
    """Take the largest item: the picture itself, whose tiles and thumbnails are smaller."""
    sizes = [struct.unpack(">II", size) for size in _ISPE.findall(head)]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


_READERS: Final = {ImageKind.PNG: _png, ImageKind.JPEG: _jpeg, ImageKind.WEBP: _webp, ImageKind.HEIC: _heic}

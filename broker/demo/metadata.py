"""Lists what a JPEG says beside its pixels, from its bytes alone; for files of the demo, never for uploads."""

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

_EXIF: Final = b"Exif\x00\x00"
_SUB_IFDS: Final = {0x8769: "Exif", 0x8825: "GPS"}
_NAMES: Final = {
    ("", 0x010E): "description",
    ("", 0x010F): "camera maker",
    ("", 0x0110): "camera model",
    ("", 0x0132): "time",
    ("", 0x013B): "owner",
    ("Exif", 0x9003): "time taken",
    ("Exif", 0xA431): "serial number",
    ("GPS", 0x0001): "GPS latitude, half",
    ("GPS", 0x0002): "GPS latitude",
    ("GPS", 0x0003): "GPS longitude, half",
    ("GPS", 0x0004): "GPS longitude",
    ("GPS", 0x001D): "GPS date",
}
_PIXELS: Final = frozenset({0xDB, 0xC4, 0xDD, 0xDA, *range(0xC0, 0xC4)})  # tables, frame and scan
_JFIF: Final = 0xE0
_COMMENT: Final = 0xFE
_ASCII, _LONG, _RATIONAL = 2, 4, 5
_SIZES: Final = {_ASCII: 1, _LONG: 4, _RATIONAL: 8}


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a file says about its making."""

    name: str
    text: str


def details(jpeg: bytes) -> list[Detail]:
    """Return everything but pixels and the JFIF header, as far as it can be read; raise ValueError for no JPEG."""
    return [found for marker, content in _segments(jpeg) for found in _read(marker, content)]


def _segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    if not jpeg.startswith(b"\xff\xd8"):
        raise ValueError("not a JPEG")
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker, (length,) = jpeg[at + 1], struct.unpack_from(">H", jpeg, at + 2)
        yield marker, jpeg[at + 4 : at + 2 + length]
        if marker == 0xDA:
            return
        at += 2 + length


def _read(marker: int, content: bytes) -> Iterator[Detail]:
    if marker in _PIXELS or (marker == _JFIF and content.startswith(b"JFIF\x00")):
        return
    if marker == _COMMENT:
        yield Detail(name="comment", text=content.decode(errors="replace"))
    elif content.startswith(_EXIF):
        yield from _exif(content[len(_EXIF) :])
    else:
        label = content.split(b"\x00", 1)[0][:40].decode("ascii", errors="replace")
        yield Detail(name=f"segment {marker:02X}", text=f"{label} ({len(content)} bytes)")


def _exif(tiff: bytes) -> Iterator[Detail]:
    order = "<" if tiff.startswith(b"II") else ">"
    (first,) = struct.unpack_from(order + "I", tiff, 4)
    yield from _directory(tiff, order, first, "")


def _directory(tiff: bytes, order: str, at: int, directory: str) -> Iterator[Detail]:
    (count,) = struct.unpack_from(order + "H", tiff, at)
    for n in range(count):
        entry = at + 2 + 12 * n
        tag, kind, length = struct.unpack_from(order + "HHI", tiff, entry)
        value = _value(tiff, order, entry, kind, length)
        if not directory and tag in _SUB_IFDS:
            (below,) = struct.unpack_from(order + "I", tiff, entry + 8)
            yield from _directory(tiff, order, below, _SUB_IFDS[tag])
        else:
            name = _NAMES.get((directory, tag), f"{directory or 'Exif'} tag {tag:04X}")
            yield Detail(name=name, text=value)


def _value(tiff: bytes, order: str, entry: int, kind: int, length: int) -> str:
    size = _SIZES.get(kind, 0) * length
    at = entry + 8 if size <= 4 else struct.unpack_from(order + "I", tiff, entry + 8)[0]
    if kind == _ASCII:
        return tiff[at : at + size].rstrip(b"\x00").decode(errors="replace")
    if kind == _RATIONAL:
        numbers = struct.unpack_from(f"{order}{2 * length}I", tiff, at)
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return " ".join(f"{over / (under or 1):g}" for over, under in pairs)
    return f"{length} values"

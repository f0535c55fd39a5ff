"""
Tells an upload that is a picture and something else at once.

What follows a picture is dropped in any case: phones append videos, gain maps and maker data. But a file that a
browser, an unpacker or a loader would take for its own was made to deceive, and is refused.
"""

import re
import struct
from typing import Final

from broker.sniff import ImageKind
from workers.images.formats import Blob

_JPEG_BARE: Final = frozenset([0x01, *range(0xD0, 0xD8)])
_JPEG_AFTER_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_FOREIGN: Final = re.compile(
    rb"\s*(?:PK\x03\x04|%PDF-|%!PS|<\?|<!|<[a-z]|#!|MZ|\x7fELF|Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xca\xfe\xba\xbe|GIF8)",
    re.IGNORECASE,
)
_ZIP_END: Final = b"PK\x05\x06"
_ZIP_TAIL_BYTES: Final = 22 + 65_535  # where an unpacker looks for the end record of an archive
_PDF_HEAD_BYTES: Final = 1024  # where a reader looks for the start of a document


def is_polyglot(data: Blob, kind: ImageKind) -> bool:
    """Say whether the upload is also an archive, a document, a script or a program."""
    if data.find(_ZIP_END, max(0, len(data) - _ZIP_TAIL_BYTES)) >= 0 or b"%PDF-" in data[:_PDF_HEAD_BYTES]:
        return True
    try:
        end = _ENDS[kind](data)
    except (IndexError, struct.error):
        return False  # breaks off, which the decoder will say
    return _FOREIGN.match(data[end : end + 64]) is not None


def _jpeg_end(data: Blob) -> int:
    at = 2
    while data[at] == 0xFF and (marker := data[at + 1]) != 0xD9:
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        if marker == 0xDA:
            found = _JPEG_AFTER_SCAN.search(data, at)
            at = found.start() if found else len(data)
    return at + 2


def _png_end(data: Blob) -> int:
    at = 8
    while data[at + 4 : at + 8] != b"IEND":
        at += 12 + struct.unpack_from(">I", data, at)[0]
    return at + 12


def _webp_end(data: Blob) -> int:
    return 8 + int.from_bytes(data[4:8], "little")


def _heic_end(data: Blob) -> int:
    at = 0
    while at + 8 <= len(data) and re.fullmatch(rb"[a-z0-9]{4}", data[at + 4 : at + 8], re.IGNORECASE):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:
            return len(data)  # 0: the last box, up to the end
        at += size
    return at


_ENDS: Final = {
    ImageKind.JPEG: _jpeg_end,
    ImageKind.PNG: _png_end,
    ImageKind.WEBP: _webp_end,
    ImageKind.HEIC: _heic_end,
}

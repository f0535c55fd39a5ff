"""What the first bytes of an output say it is. Never decodes; what a provider says of its output is not believed."""

import re
from typing import Final

HEAD_BYTES: Final = 64
"""How much of an output has to be seen."""

JPEG: Final = "image/jpeg"
PNG: Final = "image/png"
WEBP: Final = "image/webp"
MP4: Final = "video/mp4"
WEBM: Final = "video/webm"

VIDEOS: Final = frozenset({MP4, WEBM})

_MP4_BRANDS: Final = frozenset(
    [b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"dash", b"M4V ", b"MSNV"]
)
_WEBM: Final = re.compile(rb"\x1a\x45\xdf\xa3.{0,48}?\x42\x82\x84webm", re.DOTALL)


def media_type_of(head: bytes) -> str | None:
    """Tell the media type from the first bytes; None is "nothing that Lethe serves"."""
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WEBP
    if head[4:8] == b"ftyp" and head[8:12] in _MP4_BRANDS:
        return MP4
    return WEBM if _WEBM.match(head) else None

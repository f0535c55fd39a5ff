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
    b"isom,iso2,iso3,iso4,iso5,iso6,iso7,iso8,iso9,mp41,mp42,avc1,hvc1,av01,dash,cmfc,M4V ,MSNV".split(b",")
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

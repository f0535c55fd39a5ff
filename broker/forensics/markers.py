"""
What is planted: texts that stand nowhere else in the world, in every place where an upload can carry one.

All markers of a run begin alike, so that looking for one beginning finds them all. They do not compress: a store that
compresses what it keeps would hide one that does.
"""

import secrets
import struct
import zlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from broker.forensics.encodings import tells_apart

_LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
_BEGINNING: Final = 16
_SPECIAL: Final = "?>~"
_BEYOND_ASCII: Final = "ÿþïû"
_TAIL: Final = 16
_WIDTH: Final = 96
_HEIGHT: Final = 64
_MARKED_ROWS: Final = (5, 23, 41)


class Place(StrEnum):
    """Where in an upload a marker stands, or what else is looked for."""

    BYTES = "file bytes"
    PIXELS = "pixel row"
    EXIF = "EXIF"
    COMMENT = "comment"
    FILE_NAME = "file name"
    PROMPT = "prompt"
    KEY = "key"
    PIECE = "piece of a marker"


IN_A_FILE: Final = (Place.BYTES, Place.PIXELS, Place.EXIF, Place.COMMENT, Place.FILE_NAME)


class Family:
    """Markers that begin alike; the beginning is different in every encoding."""

    def __init__(self) -> None:
        self.beginning = _beginning()
        self.labels: dict[bytes, str] = {}

    def marker(self, label: str) -> bytes:
        """Make one more."""
        tail = "".join(secrets.choice(_LETTERS) for _ in range(_TAIL))
        marker = self.beginning + tail.encode()
        self.labels[marker] = label
        return marker


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """The markers of one upload."""

    markers: Mapping[Place, bytes]

    @property
    def prompt(self) -> str:
        """What its user typed."""
        return f"a kite {self.markers[Place.PROMPT].decode()} over a red roof"

    @property
    def file_name(self) -> bytes:
        """What its file is called."""
        return b"IMG_" + self.markers[Place.FILE_NAME] + b".png"

    def picture(self) -> bytes:
        """Make a PNG that carries markers in its pixels and in whatever else a file can hold."""
        row = bytes(3) + self.markers[Place.PIXELS]
        rows = [bytearray(b"\0" + secrets.token_bytes(_WIDTH * 3)) for _ in range(_HEIGHT)]
        for n in _MARKED_ROWS:
            rows[n][1 : 1 + len(row)] = row
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            (
                _chunk(b"IHDR", struct.pack(">IIBBBBB", _WIDTH, _HEIGHT, 8, 2, 0, 0, 0)),
                _chunk(b"eXIf", _exif(self.markers[Place.EXIF])),
                _chunk(b"tEXt", b"Comment\0" + self.markers[Place.COMMENT]),
                _chunk(b"IDAT", zlib.compress(b"".join(rows))),
                _chunk(b"leTh", self.markers[Place.BYTES]),
                _chunk(b"IEND", b""),
            )
        )


def plant(family: Family, job: str) -> Planted:
    """Make the markers of one upload."""
    places = (*IN_A_FILE, Place.PROMPT)
    return Planted(markers={place: family.marker(f"{place} of {job}") for place in places})


def place_of(label: str) -> Place:
    """Say from a label where the marker stood."""
    return next((place for place in Place if label.startswith(place)), Place.PIECE)


def _beginning() -> bytes:
    """Draw until no two encodings look alike; letters beyond ASCII make JSON and UTF-16 different from plain text."""
    while True:
        letters = "".join(secrets.choice(_LETTERS + _SPECIAL) for _ in range(_BEGINNING))
        beginning = (letters[:4] + secrets.choice(_BEYOND_ASCII) + letters[4:]).encode()
        if tells_apart(beginning):
            return beginning


def _exif(text: bytes) -> bytes:
    """One directory with one entry: who made the picture."""
    entry = struct.pack(">HHII", 0x013B, 2, len(text) + 1, 26)
    return b"MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4) + text + b"\0"


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

"""
Reads the boxes of an MP4 file (ISO/IEC 14496-12), and says what has to be overwritten in it.

What is on no list becomes a free box of zeros: user data, metadata, XMP and provenance, wall clocks, chapters. Times of
creation and names of handlers and compressors are blanked. A file with a track that is neither picture nor sound, or
whose samples lie elsewhere, is refused.
"""

import mmap
import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from workers.images.edits import Edit
from workers.images.errors import EncodingFailed, ImageFault

_TABLES: Final = frozenset(b"sbgp sgpd subs saiz saio sdtp".split())

# What may stand in a box that has boxes; whoever has an entry here is gone through.
_CONTENT: Final = {
    b"": frozenset(b"ftyp styp moov moof mdat sidx mfra".split()),
    b"moov": frozenset(b"mvhd trak mvex".split()),
    b"trak": frozenset(b"tkhd edts mdia".split()),
    b"edts": frozenset(b"elst".split()),
    b"mdia": frozenset(b"mdhd hdlr minf".split()),
    b"minf": frozenset(b"vmhd smhd dinf stbl".split()),
    b"dinf": frozenset(b"dref".split()),
    b"stbl": frozenset(b"stsd stts ctts cslg stss stsc stsz stz2 stco co64 stsh padb stdp".split()) | _TABLES,
    b"mvex": frozenset(b"mehd trex".split()),
    b"moof": frozenset(b"mfhd traf".split()),
    b"traf": frozenset(b"tfhd tfdt trun".split()) | _TABLES,
    b"mfra": frozenset(b"tfra mfro".split()),
}
_FREE: Final = frozenset(b"free skip".split())

# Codecs of samples, and where the boxes of their description start behind its header.
_PICTURE_BYTES: Final = 78
_SOUND_BYTES: Final = 28
_CODECS: Final = {
    **dict.fromkeys(b"avc1 avc3 hvc1 hev1 av01 vp08 vp09 mp4v".split(), _PICTURE_BYTES),
    **dict.fromkeys(b"mp4a Opus ac-3 ec-3 .mp3".split(), _SOUND_BYTES),
}
_DESCRIPTION: Final = frozenset(
    b"avcC hvcC av1C vpcC esds dOps dac3 dec3 colr pasp clap btrt fiel mdcv clli chnl srat".split()
)
_COLOURS: Final = frozenset([b"nclx", b"nclc"])  # numbers; the others hold an ICC profile, which may say anything
_COMPRESSOR_AT: Final = 42
_COMPRESSOR_BYTES: Final = 32
_HANDLERS: Final = frozenset([b"vide", b"soun"])
_TRACK_HEADER_BYTES: Final = 84
_IN_THIS_FILE: Final = b"\0\0\0\1"
_MAX_BRANDS: Final = 32


class Box(msgspec.Struct, frozen=True):
    """One box: its name, where it starts, where its content starts, and where it ends."""

    name: bytes
    start: int
    body: int
    end: int

    def field(self, data: mmap.mmap, at: int, size_bytes: int) -> bytes:
        """Read some of its content."""
        if self.body + at + size_bytes > self.end:
            raise EncodingFailed(ImageFault.TRUNCATED)
        return data[self.body + at : self.body + at + size_bytes]


class Mp4:
    """One MP4 file; `size` is that of its largest track, and known once all edits were gone through."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._track = (0, 0)
        self._handlers: list[bytes] = []
        self.size = (0, 0)

    def edits(self) -> Iterator[Edit]:
        """Say what has to be overwritten; raise EncodingFailed where that would not make it clean."""
        if self._data[4:8] != b"ftyp":
            raise EncodingFailed(ImageFault.NOT_A_VIDEO)
        yield from self._content(b"", 0, len(self._data))
        if b"vide" not in self._handlers:
            raise EncodingFailed(ImageFault.NOT_A_VIDEO)

    def _content(self, parent: bytes, start: int, end: int) -> Iterator[Edit]:
        for box in _boxes(self._data, start, end, is_top=not parent):
            if box.name in _FREE:
                yield Edit(box.body, box.end - box.body)
            elif box.name not in _CONTENT[parent]:
                yield from _freed(box)
            else:
                yield from self._named(box)

    def _named(self, box: Box) -> Iterator[Edit]:
        match box.name:
            case b"trak":
                yield from self._trak(box)
            case b"ftyp" | b"styp":
                _check_brands(box.field(self._data, 0, box.end - box.body))
            case b"mvhd" | b"mdhd" | b"tkhd":
                yield self._times(box)
            case b"hdlr":
                yield self._handler(box)
            case b"dref":
                self._check_references(box)
            case b"stsd":
                yield from self._descriptions(box)
            case _ if box.name in _CONTENT:
                yield from self._content(box.name, box.body, box.end)
            case _:
                pass

    def _trak(self, box: Box) -> Iterator[Edit]:
        before = len(self._handlers)
        yield from self._content(b"trak", box.body, box.end)
        kinds = self._handlers[before:]
        if len(kinds) != 1 or kinds[0] not in _HANDLERS:
            raise EncodingFailed(ImageFault.NOT_CLEAN)
        if kinds == [b"vide"]:
            self.size = max(self.size, self._track)

    def _times(self, box: Box) -> Edit:
        """Blank when it was created and modified; a track's header tells its size too."""
        version = box.field(self._data, 0, 1)[0]
        if box.name == b"tkhd":
            box.field(self._data, 0, _TRACK_HEADER_BYTES)
            self._track = struct.unpack(">HxxHxx", self._data[box.end - 8 : box.end])
        width = 8 if version == 0 else 16
        box.field(self._data, 4, width)
        return Edit(box.body + 4, width)

    def _handler(self, box: Box) -> Edit:
        self._handlers.append(box.field(self._data, 8, 4))
        return Edit(box.body + 12, box.end - box.body - 12)

    def _check_references(self, box: Box) -> None:
        """Refuse samples that lie in another file: a player would fetch it."""
        box.field(self._data, 0, 8)
        for entry in _boxes(self._data, box.body + 8, box.end):
            if entry.name != b"url " or entry.field(self._data, 0, entry.end - entry.body) != _IN_THIS_FILE:
                raise EncodingFailed(ImageFault.NOT_CLEAN)

    def _descriptions(self, box: Box) -> Iterator[Edit]:
        box.field(self._data, 0, 8)
        for entry in _boxes(self._data, box.body + 8, box.end):
            header_bytes = _CODECS.get(entry.name, 0)
            head = entry.field(self._data, 0, header_bytes)
            if header_bytes == _SOUND_BYTES:
                if head[8:10] != b"\0\0":  # a form of QuickTime's, with fields of its own
                    raise EncodingFailed(ImageFault.NOT_CLEAN)
            elif header_bytes == _PICTURE_BYTES:
                yield Edit(entry.body + 8, 16)  # reserved; QuickTime names a vendor here
                yield Edit(entry.body + _COMPRESSOR_AT, _COMPRESSOR_BYTES)
            else:
                raise EncodingFailed(ImageFault.NOT_CLEAN)
            yield from self._description(entry, entry.body + header_bytes)

    def _description(self, entry: Box, start: int) -> Iterator[Edit]:
        for box in _boxes(self._data, start, entry.end):
            is_profile = box.name == b"colr" and box.field(self._data, 0, 4) not in _COLOURS
            if box.name in _FREE:
                yield Edit(box.body, box.end - box.body)
            elif box.name not in _DESCRIPTION or is_profile:
                yield from _freed(box)


def _boxes(data: mmap.mmap, start: int, end: int, *, is_top: bool = False) -> Iterator[Box]:
    """Go through boxes that fill a stretch exactly; only the last one of the file may be open-ended."""
    while start < end:
        size, name = struct.unpack(">I4s", _exactly(data[start : min(start + 8, end)], 8))
        body = start + 8
        if size == 1:
            (size,) = struct.unpack(">Q", _exactly(data[body : min(body + 8, end)], 8))
            body += 8
        elif size == 0 and is_top:
            size = end - start
        if size < body - start or size > end - start:
            raise EncodingFailed(ImageFault.TRUNCATED)
        yield Box(name, start, body, start + size)
        start += size


def _exactly(found: bytes, size_bytes: int) -> bytes:
    if len(found) != size_bytes:
        raise EncodingFailed(ImageFault.TRUNCATED)
    return found


def _freed(box: Box) -> Iterator[Edit]:
    yield Edit(box.start + 4, 4, b"free")
    yield Edit(box.body, box.end - box.body)


def _check_brands(body: bytes) -> None:
    """Brands are four printable characters each, and few."""
    brands = body[:4] + body[8:]
    if (
        len(body) % 4
        or not 8 <= len(body) <= _MAX_BRANDS * 4
        or not brands.isascii()
        or not brands.decode().isprintable()
    ):
        raise EncodingFailed(ImageFault.NOT_A_VIDEO)

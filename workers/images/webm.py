"""
Reads the elements of a WebM file (EBML, RFC 8794; Matroska, RFC 9559), and says what has to be overwritten in it.

What is on no list becomes a void element of zeros: tags, attachments, chapters, titles, dates, names, checksums of what
was edited. A file with a track that is neither picture nor sound, or that is made of anything but WebM's codecs, is
refused; so is Vorbis, whose private data hold comments.
"""

import mmap
from collections.abc import Iterator
from typing import Final

import msgspec

from workers.images.edits import Edit
from workers.images.errors import EncodingFailed, ImageFault

_EBML: Final = 0x1A45DFA3
_SEGMENT: Final = 0x18538067
_SEEK_HEAD: Final = 0x114D9B74
_SEEK: Final = 0x4DBB
_SEEK_ID: Final = 0x53AB
_INFO: Final = 0x1549A966
_TRACKS: Final = 0x1654AE6B
_TRACK: Final = 0xAE
_VIDEO: Final = 0xE0
_AUDIO: Final = 0xE1
_CLUSTER: Final = 0x1F43B675
_GROUP: Final = 0xA0
_CUES: Final = 0x1C53BB6B
_CUE: Final = 0xBB
_VOID: Final = 0xEC
_DOC_TYPE: Final = 0x4282
_MUXING_APP: Final = 0x4D80  # has to be there, and says nothing
_WRITING_APP: Final = 0x5741  # as above
_TRACK_TYPE: Final = 0x83
_CODEC: Final = 0x86
_WIDTH: Final = 0xB0
_HEIGHT: Final = 0xBA
_TOP: Final = 0

# What may stand in an element that has elements; whoever has an entry here is gone through.
_CONTENT: Final = {
    _TOP: frozenset([_EBML, _SEGMENT]),
    _EBML: frozenset([0x4286, 0x42F7, 0x42F2, 0x42F3, _DOC_TYPE, 0x4287, 0x4285]),
    _SEGMENT: frozenset([_SEEK_HEAD, _INFO, _TRACKS, _CLUSTER, _CUES]),
    _SEEK_HEAD: frozenset([_SEEK]),
    _SEEK: frozenset([_SEEK_ID, 0x53AC]),
    _INFO: frozenset([0x2AD7B1, 0x4489, _MUXING_APP, _WRITING_APP]),
    _TRACKS: frozenset([_TRACK]),
    _TRACK: frozenset(
        (
            *(0xD7, 0x73C5, _TRACK_TYPE, 0xB9, 0x88, 0x55AA, 0x9C, 0x6DE7, 0x6DF8, 0x23E383, _CODEC, 0x63A2),
            *(0x56AA, 0x56BB, _VIDEO, _AUDIO, 0x55EE),
        )
    ),
    _VIDEO: frozenset(
        (
            *(0x9A, 0x9D, 0x53B8, 0x53C0, _WIDTH, _HEIGHT, 0x54AA, 0x54BB, 0x54CC, 0x54DD, 0x54B0, 0x54BA),
            *(0x54B2, 0x54B3, 0x55B0),
        )
    ),
    _AUDIO: frozenset([0xB5, 0x78B5, 0x9F, 0x6264]),
    _CLUSTER: frozenset([0xE7, 0xA3, _GROUP, 0xA7, 0xAB]),
    _GROUP: frozenset([0xA1, 0x9B, 0xFB, 0x75A2, 0x75A1]),
    _CUES: frozenset([_CUE]),
}
_READ: Final = frozenset([_DOC_TYPE, _TRACK_TYPE, _CODEC, _WIDTH, _HEIGHT])
_OF_TRACK: Final = _READ - {_DOC_TYPE}
_MAX_VALUE_BYTES: Final = 16
_BESIDE_CLUSTERS: Final = frozenset([_EBML, _SEGMENT, 0x1254C367, 0x1941A469, 0x1043A770])  # what else ends a cluster
_MAY_BE_OPEN: Final = frozenset([_SEGMENT, _CLUSTER])
_CODECS: Final = {1: frozenset([b"V_VP8", b"V_VP9", b"V_AV1"]), 2: frozenset([b"A_OPUS"])}
_SHORT_VOID_BYTES: Final = 2 + 126


class Element(msgspec.Struct, frozen=True):
    """One element: its id, where it starts, where its content starts, and where it ends."""

    id: int
    start: int
    body: int
    end: int


class WebM:
    """One WebM file; `size` is that of its largest track, and known once all edits were gone through."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._values: dict[int, bytes] = {}
        self.size = (0, 0)

    def edits(self) -> Iterator[Edit]:
        """Say what has to be overwritten; raise EncodingFailed where that would not make it clean."""
        yield from self._content(_TOP, 0, len(self._data))
        if self._values.get(_DOC_TYPE, b"").rstrip(b"\0") != b"webm" or _TRACK not in self._values:
            raise EncodingFailed(ImageFault.NOT_A_VIDEO)

    def _content(self, parent: int, start: int, end: int) -> Iterator[Edit]:
        for element in _elements(self._data, parent, start, end):
            if element.id == _VOID:
                yield Edit(element.body, element.end - element.body)
            elif element.id not in _CONTENT[parent] or self._leads_nowhere(element):
                yield _voided(element)
            elif element.id == _TRACK:
                yield from self._track(element)
            elif element.id in (_MUXING_APP, _WRITING_APP):
                yield Edit(element.body, element.end - element.body)
            elif element.id in _CONTENT:
                yield from self._content(element.id, element.body, element.end)
            elif element.id in _READ:
                self._values[element.id] = self._data[element.body : min(element.end, element.body + _MAX_VALUE_BYTES)]

    def _leads_nowhere(self, element: Element) -> bool:
        """Whether this is an index entry for what becomes void."""
        if element.id != _SEEK:
            return False
        ids = [e for e in _elements(self._data, _SEEK, element.body, element.end) if e.id == _SEEK_ID]
        return not ids or int.from_bytes(self._data[ids[0].body : ids[0].end][:4], "big") not in _CONTENT[_SEGMENT]

    def _track(self, element: Element) -> Iterator[Edit]:
        self._values = {id_: value for id_, value in self._values.items() if id_ not in _OF_TRACK}
        yield from self._content(_TRACK, element.body, element.end)
        kind = self._number(_TRACK_TYPE)
        if self._values.get(_CODEC, b"").rstrip(b"\0") not in _CODECS.get(kind, ()):
            raise EncodingFailed(ImageFault.NOT_CLEAN)
        if kind == 1:
            self._values[_TRACK] = b""
            self.size = max(self.size, (self._number(_WIDTH), self._number(_HEIGHT)))

    def _number(self, id_: int) -> int:
        return int.from_bytes(self._values.get(id_, b""), "big")


def _elements(data: mmap.mmap, parent: int, start: int, end: int) -> Iterator[Element]:
    """
    Go through elements that fill a stretch exactly.

    A live recording does not know how long its segment and its clusters are: they end where what cannot be in them
    begins, or the file ends.
    """
    while start < end:
        id_, at = _id(data, start, end)
        size, body = _size(data, at, end)
        if size is None:
            if id_ not in _MAY_BE_OPEN or id_ not in _CONTENT[parent]:
                raise EncodingFailed(ImageFault.NOT_A_VIDEO)
            stop = end if id_ == _SEGMENT else _end_of_cluster(data, body, end)
        else:
            stop = body + size
        if stop > end:
            raise EncodingFailed(ImageFault.TRUNCATED)
        yield Element(id_, start, body, stop)
        start = stop


def _end_of_cluster(data: mmap.mmap, at: int, end: int) -> int:
    while at < end:
        id_, after = _id(data, at, end)
        if id_ in _CONTENT[_SEGMENT] or id_ in _BESIDE_CLUSTERS:
            return at
        size, body = _size(data, after, end)
        if size is None or body + size > end:
            raise EncodingFailed(ImageFault.TRUNCATED)
        at = body + size
    return at


def _id(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    length = 9 - data[at].bit_length()
    if length > 4:
        raise EncodingFailed(ImageFault.NOT_A_VIDEO)
    if at + length > end:
        raise EncodingFailed(ImageFault.TRUNCATED)
    return int.from_bytes(data[at : at + length], "big"), at + length


def _size(data: mmap.mmap, at: int, end: int) -> tuple[int | None, int]:
    """Read a size, None where it is not known, and where the content starts."""
    length = 9 - data[at].bit_length() if at < end else 9
    if length > 8 or at + length > end:
        raise EncodingFailed(ImageFault.TRUNCATED)
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(data[at : at + length], "big") & unknown
    return None if size == unknown else size, at + length


def _voided(element: Element) -> Edit:
    """Make a void element of the same length."""
    length = element.end - element.start
    if length <= _SHORT_VOID_BYTES:
        head = bytes([_VOID, 0x80 | (length - 2)])
    else:
        head = bytes([_VOID, 0x01]) + (length - 9).to_bytes(7, "big")
    return Edit(element.start, length, head)

"""
Makes videos in memory: by hand, with markers wherever one can be hidden, and real ones from real encoders.

The real ones are 64×48 pixels and two frames, made with x264, AAC, VP9 and Opus, whole and as they are streamed, with
markers in their metadata.
"""

import base64
import struct
import zlib
from typing import Final

from tests.images_corpus import marker
from tests.videos_real import FRAGMENTED_MP4, LIVE_WEBM, MP4, WEBM

REAL: Final = {
    name: zlib.decompress(base64.b85decode("".join(text.split())))
    for name, text in {"mp4": MP4, "fragmented": FRAGMENTED_MP4, "webm": WEBM, "live": LIVE_WEBM}.items()
}
FRAMES: Final = b"these bytes stand for pictures and sound" * 100
MP4_BLOCKS: Final = (
    *("UDTA", "UDTA2", "META", "UUID", "UUID2", "UUID3", "UUID4", "FREE", "SKIP", "FREE2", "HANDLER", "COMPRESSOR"),
    *("VENDOR", "ICC", "UNKNOWN", "UNKNOWN2", "CHAPTERS", "FREE3", "RESERVED", "TIME", "TIME2", "TIME3", "LAST"),
)
WEBM_BLOCKS: Final = (
    *("TITLE", "MUXER", "WRITER", "DATE", "UID", "NAME", "LANGUAGE", "CODECNAME", "TAGS", "ATTACHMENT", "CHAPTERS"),
    *("VOID", "VOID2", "VOID3", "CRC", "UNKNOWN", "UNKNOWN2", "UNKNOWN3", "SEEK", "LONG", "LAST"),
)

Part = bytes | int


def box(name: bytes, *content: bytes, is_large: bool = False, size: int | None = None) -> bytes:
    """Write an MP4 box; `size` lies about its size."""
    body = b"".join(content)
    if is_large:
        return struct.pack(">I4sQ", 1, name, len(body) + 16 if size is None else size) + body
    return struct.pack(">I4s", len(body) + 8 if size is None else size, name) + body


def full(name: bytes, *content: bytes, version: int = 0) -> bytes:
    """Write a box with a version."""
    return box(name, bytes([version, 0, 0, 0]), *content)


def ftyp(brand: bytes = b"isom") -> bytes:
    """Write the first box of a file."""
    return box(b"ftyp", brand, b"\0\0\2\0", b"isom", b"mp42")


def times(block: str, version: int = 0) -> bytes:
    """Write when something was made and modified, in as many bytes as a version has."""
    return marker(block)[13:][: 16 if version else 8].ljust(16 if version else 8, b"x")


def tkhd(*, width: int = 640, height: int = 360) -> bytes:
    """Write the header of a track, version 1."""
    return full(b"tkhd", times("TIME2", 1), bytes(68), struct.pack(">HHHH", width, 0, height, 0), version=1)


def hdlr(kind: bytes = b"vide") -> bytes:
    """Write what kind a track is, and a name for it."""
    return full(b"hdlr", bytes(4), kind, marker("RESERVED")[:12], marker("HANDLER") + b"\0")


def dref(*entries: bytes) -> bytes:
    """Write where samples lie."""
    return full(b"dref", struct.pack(">I", len(entries)), *entries)


IN_THIS_FILE: Final = box(b"url ", b"\0\0\0\1")


def picture_entry(*content: bytes, name: bytes = b"avc1") -> bytes:
    """Write how pictures are coded."""
    head = bytes(6) + b"\0\1" + marker("VENDOR")[:16] + struct.pack(">HH", 640, 360) + bytes(14)
    return box(name, head, marker("COMPRESSOR").ljust(32, b"\0"), b"\0\x18\xff\xff", *content)


def sound_entry(*content: bytes, name: bytes = b"mp4a", version: int = 0) -> bytes:
    """Write how sound is coded."""
    return box(name, bytes(6), b"\0\1", struct.pack(">H", version), bytes(18), *content)


def stsd(*entries: bytes) -> bytes:
    """Write how samples are coded."""
    return full(b"stsd", struct.pack(">I", len(entries)), *entries)


def track(
    *content: bytes, handler: bytes | None = None, entry: bytes | None = None, reference: bytes = IN_THIS_FILE
) -> bytes:
    """Write a track, of pictures unless told otherwise."""
    table = box(b"stbl", stsd(entry or picture_entry()), box(b"free", marker("FREE3")))
    minf = box(b"minf", full(b"vmhd", bytes(8)), box(b"dinf", dref(reference)), table)
    header = full(b"mdhd", times("TIME3"), bytes(12))
    mdia = box(b"mdia", header, hdlr() if handler is None else handler, minf)
    return box(b"trak", tkhd(), mdia, *content)


def moov(*content: bytes) -> bytes:
    """Write a movie of one track of pictures and whatever else is given."""
    return box(b"moov", full(b"mvhd", times("TIME"), bytes(88)), *(content or (track(),)))


def marked_mp4() -> bytes:
    """Make an MP4 in which every place that can hold a marker holds one."""
    profile = box(b"colr", b"prof", marker("ICC"))
    colours = box(b"colr", b"nclx", bytes(7))
    entry = picture_entry(box(b"avcC", bytes(20)), colours, profile, box(b"uuid", bytes(16), marker("UUID4")))
    marked_track = track(
        box(b"udta", marker("UDTA2")),
        box(b"uuid", bytes(16), marker("UUID3")),
        box(b"tref", box(b"chap", marker("CHAPTERS"))),
        box(b"free", marker("FREE2")),
        entry=entry,
    )
    movie = moov(
        marked_track,
        track(handler=hdlr(b"soun"), entry=sound_entry(box(b"esds", bytes(9)))),
        box(b"udta", full(b"meta", marker("UDTA"))),
        box(b"uuid", bytes(16), marker("UUID2")),
        box(b"lthe", marker("UNKNOWN2")),
    )
    return b"".join(
        [
            ftyp(),
            box(b"free", marker("FREE")),
            box(b"uuid", bytes(16), marker("UUID"), is_large=True),
            movie,
            full(b"meta", marker("META")),
            box(b"skip", marker("SKIP")),
            box(b"lthe", marker("UNKNOWN")),
            box(b"mdat", FRAMES),
            box(b"wide", marker("LAST"), size=0),
        ]
    )


def element(id_: int, *content: Part, size: bytes | None = None) -> bytes:
    """Write an EBML element; `size` lies about its size."""
    body = b"".join(part if isinstance(part, bytes) else part.to_bytes(4, "big") for part in content)
    length = (len(body) | 1 << 28).to_bytes(4, "big") if size is None else size
    return id_.to_bytes((id_.bit_length() + 7) // 8, "big") + length + body


UNKNOWN_SIZE: Final = b"\x01\xff\xff\xff\xff\xff\xff\xff"


def ebml(doc_type: bytes = b"webm") -> bytes:
    """Write the head of a file."""
    return element(0x1A45DFA3, b"\x42\x82" + bytes([0x80 | len(doc_type)]) + doc_type, element(0x4287, 4))


def webm_track(*content: bytes, kind: int = 1, codec: bytes = b"V_VP9") -> bytes:
    """Write a track."""
    video = element(0xE0, element(0xB0, 640), element(0xBA, 360), element(0x4FFF, marker("UNKNOWN3")))
    return element(0xAE, element(0xD7, 1), element(0x83, kind), element(0x86, codec), video, *content)


def segment(*content: bytes, size: bytes | None = None) -> bytes:
    """Write a segment of one track and whatever else is given."""
    return element(0x18538067, *content, size=size)


def cluster(*content: bytes, size: bytes | None = None) -> bytes:
    """Write pictures and sound."""
    return element(0x1F43B675, element(0xE7, 0), element(0xA3, FRAMES), *content, size=size)


def marked_webm() -> bytes:
    """Make a WebM in which every place that can hold a marker holds one."""
    seeks = [element(0x4DBB, element(0x53AB, id_), element(0x53AC, place)) for id_, place in _SEEKS]
    names = {0x7BA9: "TITLE", 0x4D80: "MUXER", 0x5741: "WRITER", 0x4461: "DATE", 0x73A4: "UID"}
    info = [element(id_, marker(block)) for id_, block in names.items()]
    inside = {0x536E: "NAME", 0x22B59C: "LANGUAGE", 0x258688: "CODECNAME"}
    marked_track = webm_track(*(element(id_, marker(block)) for id_, block in inside.items()))
    return (
        ebml()
        + segment(
            element(0x114D9B74, element(0xBF, marker("CRC")), *seeks),
            element(0xEC, marker("VOID")),
            element(0x1549A966, element(0x2AD7B1, 1_000_000), *info),
            element(0x1654AE6B, marked_track, webm_track(kind=2, codec=b"A_OPUS")),
            element(0x1254C367, element(0x7373, marker("TAGS"))),
            cluster(element(0xEC, marker("VOID2")), element(0x4FFE, marker("UNKNOWN2"))),
            element(0x1C53BB6B, element(0xBB, 1), element(0xEC, marker("VOID3"))),
            element(0x1941A469, element(0x61A7, marker("ATTACHMENT"))),
            element(0x1043A770, marker("CHAPTERS")),
            element(0x1A45DFA4, marker("LONG") * 20),
            element(0x4FFD, marker("UNKNOWN")),
        )
        + element(0x1A45DFA5, marker("LAST"))
    )


_SEEKS: Final = ((0x1549A966, b"place"), (0x1254C367, marker("SEEK")))

"""Of a video nothing is left but pictures and sound, where they were; whatever cannot be cleaned so is refused."""

import contextlib
import mmap
import struct
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.images_corpus import marker
from tests.videos_corpus import (
    FRAMES,
    MP4_BLOCKS,
    REAL,
    UNKNOWN_SIZE,
    WEBM_BLOCKS,
    box,
    cluster,
    ebml,
    element,
    ftyp,
    full,
    hdlr,
    marked_mp4,
    marked_webm,
    moov,
    picture_entry,
    segment,
    sound_entry,
    track,
    webm_track,
)
from workers.images.errors import EncodingFailed, ImageFault
from workers.images.videos import clean

MARKED: Final = {"mp4": (marked_mp4(), MP4_BLOCKS), "webm": (marked_webm(), WEBM_BLOCKS)}
TAGS: Final = element(0x1254C367, marker("TAGS"))


def cleaned(data: bytes) -> tuple[bytes, tuple[int, int]]:
    with mmap.mmap(-1, len(data)) as source, mmap.mmap(-1, len(data)) as made:
        source[:] = data
        size = clean(source, made)
        return made[:], size


def fault(data: bytes) -> ImageFault:
    with pytest.raises(EncodingFailed) as caught:
        cleaned(data)
    return caught.value.code


def hidden(block: str) -> bytes:
    """What of a marker can be seen where there is little room for it."""
    return marker(block)[13:21] if block.startswith("TIME") else marker(block)[:12] if block in SHORT else marker(block)


SHORT: Final = {"RESERVED", "VENDOR"}


@pytest.mark.parametrize("name", MARKED)
def test_no_marker_survives(name: str) -> None:
    """Every place that can hold something else is overwritten, and the rest stands where it stood."""
    data, blocks = MARKED[name]
    assert [block for block in blocks if hidden(block) not in data] == []
    made, size = cleaned(data)
    assert b"LETHE-MARKER" not in made
    assert [block for block in blocks if hidden(block) in made] == []
    assert size == (640, 360)
    assert len(made) == len(data)
    assert made.find(FRAMES) == data.find(FRAMES) > 0


@pytest.mark.parametrize("name", REAL)
def test_real_videos_are_cleaned(name: str) -> None:
    """What real encoders write loses its titles, places, dates and names, and no byte of a sample."""
    data = REAL[name]
    assert b"LETHE-MARKER" in data
    made, size = cleaned(data)
    assert size == (64, 48)
    for word in (b"LETHE-MARKER", b"+52.5", b"2024", b"Lavf", b"Handler"):
        assert word not in made
    start, end = media(data)
    assert end - start > 100
    assert made[start:end] == data[start:end]


def media(data: bytes) -> tuple[int, int]:
    """Where pictures and sound lie in a real video: the first media box, or all clusters."""
    if data[4:8] == b"ftyp":
        start = data.index(b"mdat")
        return start, start - 4 + int.from_bytes(data[start - 4 : start], "big")
    start, cues = data.index(b"\x1f\x43\xb6\x75"), data.find(b"\x1c\x53\xbb\x6b\x01")
    return start, cues if cues > start else len(data)


@pytest.mark.parametrize("data", [*(data for data, _ in MARKED.values()), *REAL.values()])
def test_a_clean_video_stays_as_it_is(data: bytes) -> None:
    """Cleaning what is clean changes no byte."""
    made, size = cleaned(data)
    assert cleaned(made) == (made, size)


def test_boxes_that_are_gone_are_free_and_keep_their_place() -> None:
    """A box that may not stay is a free box of the same size, whatever form its size has."""
    data = b"".join([ftyp(), box(b"uuid", b"x" * 50, is_large=True), box(b"lthe", b"y"), moov(), box(b"udta", size=0)])
    made, _ = cleaned(data)
    at = len(ftyp())
    assert made[at : at + 66] == struct.pack(">I4sQ", 1, b"free", 66) + bytes(50)
    assert made[at + 66 : at + 75] == struct.pack(">I4sB", 9, b"free", 0)
    assert made[-8:] == struct.pack(">I4s", 0, b"free")


@pytest.mark.parametrize("length", [1, 2, 3, 116, 121, 122, 123, 124, 125, 126, 127, 128, 200, 70_000])
def test_elements_that_are_gone_are_void_and_keep_their_place(length: int) -> None:
    """A void element of the same length can be made of any element, short or long."""
    rest = cluster(size=UNKNOWN_SIZE)
    data = ebml() + segment(element(0x1654AE6B, webm_track()), element(0x7BA9, b"x" * length), rest)
    made, size = cleaned(data)
    assert size == (640, 360)
    assert b"xxx" not in made
    assert made.endswith(rest)
    assert cleaned(made)[0] == made


def test_a_live_recording_ends_where_the_next_part_begins() -> None:
    """Segments and clusters of unknown size are gone through like others, and what follows them is cleaned."""
    tracks = element(0x1654AE6B, webm_track())
    clusters = cluster(size=UNKNOWN_SIZE) * 2
    made, _ = cleaned(ebml() + segment(tracks, clusters, TAGS, clusters, size=UNKNOWN_SIZE))
    assert marker("TAGS") not in made
    assert made.count(FRAMES) == 4


VIDEO: Final = ftyp() + box(b"mdat", FRAMES)
TRACKS: Final = element(0x1654AE6B, webm_track())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ImageFault.NOT_A_VIDEO),
        (b"\xff\xd8\xff\xe0" + bytes(100), ImageFault.NOT_A_VIDEO),
        (ftyp(b"heic") + moov(), ImageFault.NOT_A_VIDEO),
        (ftyp(), ImageFault.NOT_A_VIDEO),
        (VIDEO, ImageFault.NOT_A_VIDEO),
        (VIDEO + moov(track(handler=hdlr(b"soun"), entry=sound_entry())), ImageFault.NOT_A_VIDEO),
        (VIDEO + moov(track(), track(handler=hdlr(b"text"))), ImageFault.NOT_CLEAN),
        (VIDEO + moov(track(), track(handler=hdlr(b"meta"))), ImageFault.NOT_CLEAN),
        (VIDEO + moov(track(handler=b"")), ImageFault.NOT_CLEAN),
        (VIDEO + moov(track(handler=hdlr() + hdlr())), ImageFault.NOT_CLEAN),
        (VIDEO + moov(track(entry=picture_entry(name=b"mett"))), ImageFault.NOT_CLEAN),
        (VIDEO + moov(track(), track(handler=hdlr(b"soun"), entry=sound_entry(version=1))), ImageFault.NOT_CLEAN),
        (VIDEO + moov(track(reference=full(b"url ", b"https://elsewhere/\0"))), ImageFault.NOT_CLEAN),
        (VIDEO + moov(track(reference=box(b"alis", bytes(4)))), ImageFault.NOT_CLEAN),
        (VIDEO + moov()[:-1], ImageFault.TRUNCATED),
        (VIDEO + moov() + b"\0\0\0", ImageFault.TRUNCATED),
        (VIDEO + moov() + box(b"free", size=7), ImageFault.TRUNCATED),
        (VIDEO + moov() + box(b"free", size=9), ImageFault.TRUNCATED),
        (VIDEO + moov() + box(b"free", is_large=True, size=2**63), ImageFault.TRUNCATED),
        (VIDEO + moov() + box(b"free", is_large=True, size=15), ImageFault.TRUNCATED),
        (VIDEO + box(b"moov", box(b"mvhd", b"\0\0\0\0", size=0)), ImageFault.TRUNCATED),
        (VIDEO + moov(track(entry=box(b"avc1", bytes(70)))), ImageFault.TRUNCATED),
        (box(b"ftyp", b"isom", bytes(4), b"a" * 400) + moov(), ImageFault.NOT_A_VIDEO),
        (ebml(b"matroska") + segment(TRACKS), ImageFault.NOT_A_VIDEO),
        (ebml(), ImageFault.NOT_A_VIDEO),
        (ebml() + segment(cluster()), ImageFault.NOT_A_VIDEO),
        (ebml() + segment(element(0x1654AE6B, webm_track(kind=17))), ImageFault.NOT_CLEAN),
        (ebml() + segment(element(0x1654AE6B, webm_track(codec=b"V_UNCOMPRESSED"))), ImageFault.NOT_CLEAN),
        (ebml() + segment(element(0x1654AE6B, webm_track(kind=2, codec=b"A_VORBIS"))), ImageFault.NOT_CLEAN),
        (ebml() + segment(element(0x1654AE6B, webm_track(kind=2, codec=b"A_OPUS"))), ImageFault.NOT_A_VIDEO),
        ((ebml() + segment(TRACKS))[:-1], ImageFault.TRUNCATED),
        (ebml() + segment(TRACKS) + b"\x00", ImageFault.NOT_A_VIDEO),
        (ebml() + segment(TRACKS) + b"\xec", ImageFault.TRUNCATED),
        (ebml() + segment(TRACKS) + b"\xec\x00", ImageFault.TRUNCATED),
        (ebml() + segment(TRACKS, element(0x1254C367, size=UNKNOWN_SIZE)), ImageFault.NOT_A_VIDEO),
    ],
)
def test_what_cannot_be_cleaned_is_refused(data: bytes, code: ImageFault) -> None:
    """Cut files, other containers, texts and data as tracks, samples elsewhere, sizes that lie: each has its code."""
    assert fault(data or b"\0") == code


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_damage_is_a_failure_and_nothing_else(data: st.DataObject) -> None:
    """Whatever is done to a video, it comes out clean or not at all."""
    whole = bytearray(data.draw(st.sampled_from([*(data for data, _ in MARKED.values()), *REAL.values()])))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    try:
        made, _ = cleaned(bytes(whole) or b"\0")
    except EncodingFailed:
        return
    assert len(made) == len(whole)
    assert cleaned(made)[0] == made


@given(
    st.binary(min_size=1, max_size=300), st.sampled_from([ftyp(), ftyp() + moov(), ebml(), ebml() + segment(TRACKS)])
)
@settings(max_examples=300, deadline=None)
def test_anything_is_a_failure_and_nothing_else(rest: bytes, start: bytes) -> None:
    """Whatever stands behind the head of a video raises EncodingFailed, or is cleaned."""
    with contextlib.suppress(EncodingFailed):
        cleaned(start + rest)

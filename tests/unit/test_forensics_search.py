"""What `lethe forensics` looks for, and that it finds it: in every encoding, across every border."""

import base64
import io
import os
import zlib
from collections import Counter

import pytest
from PIL import Image

from broker.forensics.encodings import Encoding, patterns, planted, tells_apart
from broker.forensics.markers import Family, Place, place_of, plant
from broker.forensics.search import OVERLAP_BYTES, Found, Known, Quarry
from broker.forensics.stores import without_page_headers
from broker.forensics.streams import MOST_BYTES


@pytest.fixture
def family() -> Family:
    return Family()


@pytest.mark.parametrize("encoding", Encoding)
def test_every_encoding_is_found_and_told_apart(family: Family, encoding: Encoding) -> None:
    """A marker in one encoding is found once, as that encoding, and as nothing else."""
    leak = planted(family.marker("it"), encoding)
    found = Quarry(family).look([os.urandom(1000) + leak + os.urandom(1000)])
    assert found == Counter({Found(label="it", encoding=encoding): 1})


@pytest.mark.parametrize("encoding", Encoding)
def test_a_marker_across_a_border_is_found_once(family: Family, encoding: Encoding) -> None:
    """However a stream is cut into blocks, each marker counts once: at the border, before it, and behind it."""
    leak = planted(family.marker("it"), encoding)
    expected = Counter({Found(label="it", encoding=encoding): 1})
    for cut in range(0, len(leak) + 1, 5):
        before = os.urandom(OVERLAP_BYTES + 77)
        blocks = [before + leak[:cut], leak[cut:] + os.urandom(OVERLAP_BYTES + 5), b"x" * 100]
        assert Quarry(family).look(blocks) == expected, cut


def test_a_marker_at_every_distance_from_the_end_is_found_once(family: Family) -> None:
    """What lies in the part that two windows share is counted by one of them."""
    leak = family.marker("it")
    for behind in (0, 1, OVERLAP_BYTES - len(leak), OVERLAP_BYTES - 1, OVERLAP_BYTES, OVERLAP_BYTES + 1):
        blocks = [os.urandom(OVERLAP_BYTES * 2) + leak + os.urandom(behind), os.urandom(OVERLAP_BYTES * 2)]
        assert sum(Quarry(family).look(blocks).values()) == 1, behind


def test_a_torn_marker_is_found_too(family: Family) -> None:
    """The beginning alone betrays that a marker was there."""
    torn = family.marker("it")[:-3]
    assert Quarry(family).look([torn + bytes(50)]) == Counter({Found(label=Place.PIECE, encoding=Encoding.RAW): 1})


@pytest.mark.parametrize("header", [24, 40])
def test_a_marker_across_a_page_of_the_write_ahead_log_is_found(family: Family, header: int) -> None:
    """The header of the next page stands in the middle of a record; without it the marker is whole."""
    marker = family.marker("it")
    begins = bytes([0x18, 0xD1, 0x02 if header == 40 else 0x00, 0]).ljust(header, b"\x07")
    next_begins = bytes([0x18, 0xD1, 0x01, 0]).ljust(24, b"\x07")
    cut = len(family.beginning) // 2
    first = (begins + b"x" * 8192)[: 8192 - cut] + marker[:cut]
    segment = first + (next_begins + marker[cut:]).ljust(8192, b"\0") + bytes(8192)
    assert Quarry(family).look([segment]) == Counter()
    assert Quarry(family).look(without_page_headers([segment])) == Counter(
        {Found(label="it", encoding=Encoding.RAW): 1}
    )


def test_keys_are_found(family: Family) -> None:
    """Keys are looked for like markers, in every encoding of bytes."""
    key = os.urandom(32)
    blocks = [key, base64.b64encode(b"x" + key + b"y"), key.hex().encode(), zlib.compress(bytes(40) + key)]
    found = Quarry(family, {key: "the key"}).look([b" ".join(blocks)])
    assert {one.encoding for one in found} >= {Encoding.RAW, Encoding.BASE64_1, Encoding.HEX, Encoding.INFLATED}
    assert {one.label for one in found} == {"the key"}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_pixels_of_a_png_are_found_whatever_its_filters(family: Family, mode: str) -> None:
    """A picture as an encoder writes it, smooth so that rows are filtered, shows its rows; also inside base64."""
    marker = family.marker("pixels")
    depth = len(Image.new(mode, (1, 1)).tobytes())
    row_bytes = 60 * depth
    smooth = b"".join(bytes((x + y) % 256 for x in range(row_bytes)) for y in range(40))
    pixels = smooth[: row_bytes * 20] + marker.ljust(row_bytes, b"\x10") + smooth[row_bytes * 21 :]
    file = io.BytesIO()
    Image.frombytes(mode, (60, 40), pixels).save(file, "PNG", optimize=True)
    filters = set(zlib.decompress(_idat(file.getvalue()))[:: row_bytes + 1])
    assert filters - {0}  # else undoing them is not tried
    for written in (file.getvalue(), base64.b64encode(file.getvalue())):
        found = Quarry(family).look([b"..." + written + b"..."])
        assert {one.label for one in found} == {"pixels"}
        assert {one.encoding for one in found} == {Encoding.INFLATED}


def _idat(png: bytes) -> bytes:
    at, found = 8, b""
    while at < len(png):
        length = int.from_bytes(png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            found += png[at + 8 : at + 8 + length]
        at += length + 12
    return found


def test_a_stream_that_is_cut_off_shows_what_it_has(family: Family) -> None:
    """Half of a compressed upload is as much of a leak as a whole one."""
    text = os.urandom(20_000).hex().encode()
    stream = zlib.compress(text[:10_000] + family.marker("it") + text[10_000:])
    assert Quarry(family).look([stream[:10_000]]) == Counter({Found(label="it", encoding=Encoding.INFLATED): 1})


def test_a_bomb_is_not_unpacked_without_end(family: Family) -> None:
    """Of a stream that grows beyond all measure only the beginning is looked at."""
    bomb = zlib.compress(family.marker("early") + bytes(MOST_BYTES * 8) + family.marker("late"))
    assert {one.label for one in Quarry(family).look([bomb])} == {"early"}


def test_what_was_there_before_is_passed_over(family: Family) -> None:
    """A page that was read before cannot hold what was drawn later; one that has changed is searched with its ends."""
    known, before = Known(), bytearray(os.urandom(64 * 4096))
    assert not Quarry().look(_fresh(known, bytes(before)))
    assert len(b"".join(_fresh(known, bytes(before)))) == 2 * 4096  # its ends, beyond which there may be anything
    marker = family.marker("it")
    for at in (0, 5000, 8 * 4096 - 1, 9 * 4096 - 10, 10 * 4096 - len(marker) + 1, len(before) - len(marker)):
        after = bytearray(before)
        after[at : at + len(marker)] = marker
        assert sum(Quarry(family).look(_fresh(known, bytes(after), remember=False)).values()) == 1, at


def _fresh(known: Known, content: bytes, *, remember: bool = True) -> list[bytes]:
    seen: set[int] = set()
    blocks = list(known.fresh([content], seen))
    if remember:
        known.remember(seen)
    return blocks


def test_markers_do_not_compress_and_look_different_in_every_encoding() -> None:
    """A store that compresses would hide a marker that can be; encodings that look alike would vouch for each other."""
    for _ in range(50):
        family = Family()
        marker = family.marker("it")
        assert len(zlib.compress(marker, level=9)) >= len(marker)
        assert tells_apart(family.beginning)
        assert len({pattern.encoding for pattern in patterns(family.beginning)}) == len(Encoding) - 1


def test_an_upload_carries_a_marker_wherever_it_can(family: Family) -> None:
    """File bytes, pixels, EXIF, comment, file name and prompt each hold one of their own; the picture is a good one."""
    upload = plant(family, "a job")
    picture = upload.picture()
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
        assert upload.markers[Place.PIXELS] in image.tobytes()
    found = Quarry(family).look([picture + upload.file_name + upload.prompt.encode()])
    assert {place_of(one.label) for one in found} == set(Place) - {Place.KEY, Place.PIECE}

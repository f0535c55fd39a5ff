"""An output holds pixels and nothing else, or it is refused."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from broker.sniff import ImageKind
from tests.images_corpus import chunk, marked, saved, srgb_profile, tiff, two_halves, with_chunks, with_segments
from workers.images.formats import UncleanOutput, check
from workers.images.polyglots import is_polyglot

OUTPUTS = [ImageKind.JPEG, ImageKind.PNG, ImageKind.WEBP]
JPEG, PNG, WEBP = (saved(two_halves(), name) for name in ("JPEG", "PNG", "WEBP"))
CLEAN = {ImageKind.JPEG: JPEG, ImageKind.PNG: PNG, ImageKind.WEBP: WEBP}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (JPEG, ImageKind.JPEG),
        (saved(two_halves(), "JPEG", progressive=True), ImageKind.JPEG),
        (saved(two_halves(), "JPEG", restart_marker_blocks=1), ImageKind.JPEG),
        (saved(Image.effect_noise((200, 200), 90), "JPEG", quality=100), ImageKind.JPEG),
        (PNG, ImageKind.PNG),
        (saved(two_halves().quantize(4), "PNG"), ImageKind.PNG),
        (saved(Image.effect_noise((600, 600), 90), "PNG"), ImageKind.PNG),
        (WEBP, ImageKind.WEBP),
        (saved(two_halves(), "WEBP", lossless=True), ImageKind.WEBP),
        (saved(Image.new("RGBA", (64, 32), (9, 9, 9, 100)), "WEBP"), ImageKind.WEBP),
        (saved(Image.new("RGBA", (64, 32), (9, 9, 9, 100)), "WEBP", lossless=True), ImageKind.WEBP),
    ],
)
def test_pure_pictures_pass(data: bytes, kind: ImageKind) -> None:
    """What our encoders can make passes, in every layout."""
    check(data, kind)


JPEG_SEGMENTS = [
    (0xE0, b"JFXX\0\x10" + bytes(8)),
    (0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\x01\x01\xff\xff\xff"),
    (0xE1, b"Exif\0\0" + tiff()),
    (0xE2, b"ICC_PROFILE\0\x01\x01" + srgb_profile()),
    (0xED, b"Photoshop 3.0\0"),
    (0xEE, b"Adobe\0\x64\0\0\0\0\0"),
    (0xFE, b"comment"),
]


@pytest.mark.parametrize("segment", JPEG_SEGMENTS)
def test_foreign_jpeg_segments_are_refused(segment: tuple[int, bytes]) -> None:
    """No application data beyond a bare JFIF header, and no comment."""
    with pytest.raises(UncleanOutput):
        check(with_segments(JPEG, segment), ImageKind.JPEG)


@pytest.mark.parametrize("name", [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"tIME", b"pHYs", b"acTL", b"prVt"])
def test_foreign_png_chunks_are_refused(name: bytes) -> None:
    """No chunk but those that carry pixels, known or not."""
    with pytest.raises(UncleanOutput):
        check(with_chunks(PNG, chunk(name, b"body")), ImageKind.PNG)


def test_wrong_png_checksum_is_refused() -> None:
    """A chunk whose checksum is wrong was not written by us."""
    with pytest.raises(UncleanOutput, match="checksum"):
        check(PNG[:29] + struct.pack(">I", zlib.crc32(PNG[12:29]) ^ 1) + PNG[33:], ImageKind.PNG)


@pytest.mark.parametrize(
    "options",
    [
        {"exif": tiff()},
        {"xmp": b"<x/>"},
        {"icc_profile": srgb_profile()},
        {"save_all": True, "append_images": [Image.new("RGB", (64, 32))]},
    ],
)
def test_foreign_webp_chunks_are_refused(options: dict[str, object]) -> None:
    """No metadata chunk and no animation."""
    with pytest.raises(UncleanOutput):
        check(saved(two_halves(), "WEBP", **options), ImageKind.WEBP)


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("tail", [b"\0", b"tail", b"\xff\xd9", chunk(b"IEND", b"")])
def test_bytes_after_the_end_are_refused(kind: ImageKind, tail: bytes) -> None:
    """The file ends exactly where the picture ends."""
    with pytest.raises(UncleanOutput):
        check(CLEAN[kind] + tail, kind)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_shortened_file_is_refused(kind: ImageKind) -> None:
    """A file that breaks off anywhere is not an output."""
    for end in range(len(CLEAN[kind])):
        with pytest.raises(UncleanOutput):
            check(CLEAN[kind][:end], kind)


@pytest.mark.parametrize("kind", list(ImageKind))
def test_marked_pictures_are_refused(kind: ImageKind) -> None:
    """What a camera writes is never passed on; HEIC is never an output at all."""
    with pytest.raises(UncleanOutput):
        check(marked(kind), kind)


@given(st.binary(max_size=100), st.sampled_from(OUTPUTS), st.integers(min_value=0, max_value=60))
def test_any_bytes_get_a_verdict(noise: bytes, kind: ImageKind, keep: int) -> None:
    """Garbage is refused, and nothing else happens."""
    with pytest.raises(UncleanOutput):
        check(CLEAN[kind][:keep] + noise, kind)


@pytest.mark.parametrize("kind", list(ImageKind))
@pytest.mark.parametrize(
    "tail", [b"PK\x03\x04", b"junk PK\x05\x06" + bytes(18), b"\n<html>", b"<?php", b"%PDF-1.4", b"MZ\x90\0", b"\x7fELF"]
)
def test_second_natures_are_seen(kind: ImageKind, tail: bytes) -> None:
    """A picture that is also an archive, a page, a document or a program is told apart."""
    assert is_polyglot(marked(kind)[: -len(b"LETHE-MARKER-TRAILER-7f3a")] + tail, kind)


@pytest.mark.parametrize("kind", list(ImageKind))
@pytest.mark.parametrize("tail", [b"", b"\0" * 40, JPEG, b"SEFH\x6b\0\0\0", b"\0\0\0\x18ftypmp42\0\0\0\0isommp42"])
def test_what_phones_append_is_no_second_nature(kind: ImageKind, tail: bytes) -> None:
    """Gain maps, videos and maker data behind a photo do not make it hostile."""
    assert not is_polyglot(marked(kind) + tail, kind)


def test_a_document_that_starts_inside_a_picture_is_seen() -> None:
    """A PDF may start anywhere in the first kilobyte."""
    assert is_polyglot(with_segments(JPEG, (0xFE, b"%PDF-1.7 obj")), ImageKind.JPEG)

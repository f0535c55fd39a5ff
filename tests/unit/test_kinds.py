"""What the first bytes of an output say."""

import pytest

from broker.sniff import ImageKind, sniff
from providers.kinds import HEAD_BYTES, media_type_of
from tests.images_corpus import marked, not_pictures

EBML = bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282")


@pytest.mark.parametrize("kind", [ImageKind.JPEG, ImageKind.PNG, ImageKind.WEBP])
def test_pictures_are_told(kind: ImageKind) -> None:
    """What is said of an output's kind is what the door says of an upload's."""
    head = marked(kind)[:HEAD_BYTES]
    assert media_type_of(head) == kind.media_type
    assert sniff(head) is kind


@pytest.mark.parametrize("brand", [b"isom", b"mp42", b"avc1", b"iso6", b"M4V "])
def test_videos_are_told(brand: bytes) -> None:
    """MP4 by its brand, WebM by its document type."""
    assert media_type_of(b"\0\0\0\x18ftyp" + brand + b"\0\0\2\0isomiso2") == "video/mp4"
    assert media_type_of(EBML + b"\x84webm\x42\x87\x81\x04") == "video/webm"


@pytest.mark.parametrize(
    "head",
    [
        EBML + b"\x88matroska",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"\0\0\0\x18ftypqt  \0\0\0\0qt  ",
        b"\0\0\0\x18ftypM4A \0\0\0\0M4A ",
        b"<html>",
        b"RIFF\0\0\0\0AVI LIST",
        b"{}",
        b"\x84webm",
    ],
)
def test_nothing_else_is(head: bytes) -> None:
    """Other containers, sound, documents and pages are nothing that is served."""
    assert media_type_of(head) is None


@pytest.mark.parametrize("name", ["nothing", "text", "svg", "long_gif"])
def test_what_is_no_picture_is_nothing(name: str) -> None:
    """What the door would refuse has no kind here either."""
    assert media_type_of(not_pictures()[name][:HEAD_BYTES]) is None

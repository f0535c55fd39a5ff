"""The door tells pictures apart and knows their size without decoding."""

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from broker.sniff import HEAD_BYTES, ImageKind, dimensions, sniff
from tests.images_corpus import huge_png, long_gif, marked, saved, two_halves, with_segments, zip_archive


@pytest.mark.parametrize("kind", list(ImageKind))
def test_kind_is_told_from_64_bytes(kind: ImageKind) -> None:
    """Each format of the allow-list is known by its first 64 bytes."""
    assert sniff(marked(kind)[:64]) is kind
    assert kind.media_type == f"image/{kind}"


@pytest.mark.parametrize("kind", list(ImageKind))
def test_dimensions_are_read_behind_metadata(kind: ImageKind) -> None:
    """Width and height are found although metadata blocks stand before them."""
    # The HEIC is stored on a 64×64 canvas that is cropped later; the door may only be too strict.
    assert dimensions(marked(kind)[:HEAD_BYTES]) == ((64, 64) if kind is ImageKind.HEIC else (64, 32))


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}])
def test_plain_webp_dimensions(options: dict[str, object]) -> None:
    """Both simple WebP layouts tell their size."""
    assert dimensions(saved(two_halves(500, 301), "WEBP", **options)) == (500, 301)


def test_webp_with_alpha_dimensions() -> None:
    """The extended WebP layout tells its size."""
    assert dimensions(saved(Image.new("RGBA", (70, 50), (1, 2, 3, 4)), "WEBP")) == (70, 50)


def test_progressive_jpeg_dimensions() -> None:
    """A progressive JPEG tells its size in another segment."""
    assert dimensions(saved(two_halves(123, 45), "JPEG", progressive=True)) == (123, 45)


def test_a_bomb_is_seen_at_the_door() -> None:
    """A 200-megapixel PNG is known by its header."""
    assert dimensions(huge_png()[:64]) == (20_000, 10_000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        long_gif(3),
        zip_archive(),
        b"%PDF-1.7",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00mif1avif",
        b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1avif",
        b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp41",
        b"II*\x00",
    ],
)
def test_others_are_refused(data: bytes) -> None:
    """What is not on the allow-list has no kind and no size."""
    assert sniff(data) is None
    assert dimensions(data) is None


def test_size_out_of_sight_is_unknown() -> None:
    """A JPEG whose size stands behind the head is left to the decoder."""
    far = with_segments(saved(two_halves(), "JPEG"), (0xE1, bytes(65_000)), (0xE1, bytes(65_000)))
    assert dimensions(far[:HEAD_BYTES]) is None
    assert dimensions(far) == (64, 32)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFFxxxxWEBPVP8X"]))
def test_nothing_makes_it_fail(tail: bytes, head: bytes) -> None:
    """Any bytes get an answer."""
    size = dimensions(head + tail)
    assert size is None or len(size) == 2


def test_no_codec_is_loaded() -> None:
    """The broker's door imports no codec."""
    loaded = "import sys, broker.sniff; print(sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert "'broker'" in done.stdout
    assert "PIL" not in done.stdout
    assert "pi_heif" not in done.stdout


def test_pillow_agrees() -> None:
    """The sizes are those that Pillow reads."""
    for name in ("JPEG", "PNG", "WEBP"):
        data = saved(two_halves(333, 77), name)
        assert dimensions(data) == Image.open(io.BytesIO(data)).size

"""Pictures come out upright, in sRGB and bare; whatever is no picture is refused, and the zygote stays up."""

import asyncio
import io
import mmap
import os
import tempfile
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, ImageOps

from broker.sniff import ImageKind
from providers.base import Pixels, Upload
from tests.images_corpus import (
    BLOCKS,
    LEFT,
    PNG_SIGNATURE,
    RIGHT,
    animated,
    chunk,
    marked,
    marker,
    not_pictures,
    red_is_green_profile,
    saved,
    tiff,
    two_halves,
    with_chunks,
)
from workers.images.errors import EncodingFailed, ImageFault, InvalidImage
from workers.images.formats import check
from workers.images.orders import ImageLimits
from workers.images.zygote import Zygote

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS = ImageLimits(max_pixels=20_000_000, timeout_s=20.0)
OUTPUTS = [ImageKind.JPEG, ImageKind.PNG, ImageKind.WEBP]
REFUSED = not_pictures()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote() -> AsyncIterator[Zygote]:
    started = await Zygote.start(LIMITS)
    first = started.pid
    yield started
    assert started.pid == first, "an input took the zygote down"
    await started.aclose()


async def decode(zygote: Zygote, data: bytes, limits: ImageLimits | None = None) -> Pixels:
    fd = os.memfd_create("test-upload")
    try:
        os.write(fd, data)
        return await zygote.decode(Upload(fd=fd, size_bytes=len(data)), limits=limits)
    finally:
        os.close(fd)


def taken(pixels: Pixels) -> Image.Image:
    """Read the rows, and close them."""
    assert os.fstat(pixels.fd).st_size == pixels.size_bytes
    rows = os.pread(pixels.fd, pixels.size_bytes, 0)
    os.close(pixels.fd)
    return Image.frombytes("RGB" if pixels.channels == 3 else "RGBA", (pixels.width, pixels.height), rows)


async def seen(zygote: Zygote, data: bytes) -> Image.Image:
    return taken(await decode(zygote, data))


async def encoded(zygote: Zygote, pixels: Pixels, kind: ImageKind, quality: int = 92) -> bytes:
    upload = await zygote.encode(pixels, kind=kind, quality=quality)
    data = os.pread(upload.fd, upload.size_bytes + 1, 0)
    os.close(upload.fd)
    assert len(data) == upload.size_bytes
    return data


def is_near(found: object, wanted: tuple[int, ...], most: int = 12) -> bool:
    assert isinstance(found, tuple)
    found = cast("tuple[int, ...]", found)
    return len(found) == len(wanted) and all(abs(a - b) <= most for a, b in zip(found, wanted, strict=True))


def difference(one: Image.Image, other: Image.Image) -> int:
    """Find the largest difference of any channel of any pixel."""
    assert (one.size, one.mode) == (other.size, other.mode)
    return max(ImageChops.difference(one, other).tobytes())


@pytest.mark.parametrize("kind", list(ImageKind))
@pytest.mark.parametrize("output", OUTPUTS)
async def test_no_marker_survives(zygote: Zygote, kind: ImageKind, output: ImageKind) -> None:
    """m2r-6: of all metadata of the upload nothing is left in an output; each marker is there to begin with."""
    data = marked(kind)
    assert [block for block in BLOCKS[kind] if marker(block) not in data] == []
    pixels = await decode(zygote, data)
    made = await encoded(zygote, pixels, output)
    os.close(pixels.fd)
    assert b"LETHE-MARKER" not in made
    assert b"Exif" not in made
    check(made, output)


@pytest.mark.parametrize("kind", list(ImageKind))
async def test_each_kind_is_seen_right(zygote: Zygote, kind: ImageKind) -> None:
    """The picture itself is what survives."""
    picture = await seen(zygote, marked(kind))
    if kind is ImageKind.HEIC:  # stored turned by 90° counter-clockwise in its own way
        assert picture.size == (32, 64)
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    assert picture.size == (64, 32)
    assert is_near(picture.getpixel((5, 16)), LEFT)
    assert is_near(picture.getpixel((58, 16)), RIGHT)


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_picture_is_refused(zygote: Zygote, name: str) -> None:
    """Bad input is refused with a code and no content; nothing is written, and the next picture works."""
    before = _files()
    with pytest.raises(InvalidImage) as refused:
        await decode(zygote, REFUSED[name])
    assert str(refused.value) == refused.value.code
    assert refused.value.code not in (ImageFault.DECODER_KILLED, ImageFault.TIMEOUT)
    assert _files() == before
    assert is_near((await seen(zygote, saved(two_halves(), "PNG"))).getpixel((0, 0)), LEFT, 0)


def _files() -> set[Path]:
    # Servers of tests that run beside this one have shared memory, and come and go.
    shared = [path for path in Path("/dev/shm").glob("*") if not path.name.startswith("PostgreSQL.")]
    return {*Path(tempfile.gettempdir()).glob("*mp*"), *Path.cwd().glob("*"), *shared}


async def test_codes_tell_what_is_wrong(zygote: Zygote) -> None:
    """The codes that a client acts on are the right ones."""
    wanted = {
        "text": ImageFault.NOT_AN_IMAGE,
        "nothing": ImageFault.NOT_AN_IMAGE,
        "long_gif": ImageFault.NOT_AN_IMAGE,
        "jpeg_and_zip": ImageFault.NOT_AN_IMAGE,
        "png_and_html": ImageFault.NOT_AN_IMAGE,
        "huge_png": ImageFault.TOO_MANY_PIXELS,
        "png_cut": ImageFault.TRUNCATED,
    }
    for name, code in wanted.items():
        with pytest.raises(InvalidImage) as refused:
            await decode(zygote, REFUSED[name])
        assert (name, refused.value.code) == (name, code)


async def test_the_pixel_limit_is_exact(zygote: Zygote) -> None:
    """As many pixels as allowed pass, one more does not."""
    png = saved(two_halves(100, 50), "PNG")
    taken(await decode(zygote, png, ImageLimits(max_pixels=5000)))
    with pytest.raises(InvalidImage, match="too_many_pixels"):
        await decode(zygote, png, ImageLimits(max_pixels=4999))


@pytest.mark.parametrize("name", ["PNG", "WEBP", "MPO"])
async def test_only_the_first_frame_is_taken(zygote: Zygote, name: str) -> None:
    """An animation, or what a phone appends to its photo, counts as the first picture."""
    picture = await seen(zygote, animated(name))
    assert is_near(picture.convert("RGB").getpixel((5, 16)), LEFT, 30)
    assert is_near(picture.convert("RGB").getpixel((58, 16)), RIGHT, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_orientation_is_applied(zygote: Zygote, orientation: int) -> None:
    """The rows are upright for every orientation, across strip borders too."""
    gradient = Image.merge("RGB", [Image.linear_gradient("L").resize((300, 401)).rotate(turn) for turn in (0, 90, 180)])
    png = with_chunks(saved(gradient, "PNG"), chunk(b"eXIf", tiff(orientation)))
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(png)))
    assert difference(await seen(zygote, png), wanted.convert("RGB")) == 0


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
async def test_the_profile_is_applied(zygote: Zygote, name: str) -> None:
    """A profile that swaps red and green has its colours swapped; the same picture without it does not."""
    red = Image.new("RGB", (40, 300), (250, 10, 10))
    assert is_near((await seen(zygote, saved(red, name))).getpixel((20, 290)), (250, 10, 10))
    found = (await seen(zygote, saved(red, name, icc_profile=red_is_green_profile()))).getpixel((20, 290))
    assert is_near(found, (10, 250, 10))


async def test_the_profile_agrees_with_lcms(zygote: Zygote) -> None:
    """Strip by strip gives what converting the whole picture gives, alpha untouched."""
    noise = [Image.effect_noise((90, 300), 100) for _ in range(4)]
    picture, profile = Image.merge("RGBA", noise), red_is_green_profile()
    wanted = ImageCms.profileToProfile(
        picture.convert("RGB"),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    assert wanted is not None
    found = await seen(zygote, saved(picture, "PNG", icc_profile=profile))
    assert difference(found.convert("RGB"), wanted) <= 2
    assert difference(found.getchannel("A"), noise[3]) == 0


@pytest.mark.parametrize("profile", [b"", b"garbage", b"\0" * 200, red_is_green_profile()[:150]])
async def test_a_broken_profile_counts_as_none(zygote: Zygote, profile: bytes) -> None:
    """A profile that cannot be read does not cost the user the picture."""
    png = with_chunks(saved(two_halves(), "PNG"), *_chunks_of(profile))
    assert is_near((await seen(zygote, png)).getpixel((0, 0)), LEFT, 0)


def _chunks_of(profile: bytes) -> list[bytes]:
    return [chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile))]


def _palette() -> Image.Image:
    return two_halves().quantize(4)


PICTURES = {
    "bits": (saved(Image.new("1", (9, 9), 1), "PNG"), (255, 255, 255)),
    "grey": (saved(Image.new("L", (9, 9), 77), "PNG"), (77, 77, 77)),
    "grey_alpha": (saved(Image.new("LA", (9, 9), (77, 50)), "PNG"), (77, 77, 77, 50)),
    "grey_16": (saved(Image.new("I;16", (9, 9), 77 * 257), "PNG"), (77, 77, 77)),
    "palette": (saved(_palette(), "PNG"), LEFT),
    "palette_clear": (saved(_palette(), "PNG", transparency=bytes([90] * 4)), (*LEFT, 90)),
    "colour_clear": (saved(two_halves(), "PNG", transparency=LEFT), (*LEFT, 0)),
    "alpha": (saved(Image.new("RGBA", (9, 9), (10, 20, 30, 40)), "PNG"), (10, 20, 30, 40)),
    "webp_alpha": (saved(Image.new("RGBA", (9, 9), (10, 20, 30, 40)), "WEBP", lossless=True), (10, 20, 30, 40)),
    "jpeg_grey": (saved(Image.new("L", (9, 9), 77), "JPEG"), (77, 77, 77)),
    "jpeg_cmyk": (saved(Image.new("CMYK", (9, 9), (0, 255, 255, 0)), "JPEG"), (255, 0, 0)),
    "jpeg_progressive": (saved(two_halves(), "JPEG", progressive=True, quality=95), LEFT),
}


@pytest.mark.parametrize("name", PICTURES)
async def test_every_mode_becomes_rgb_or_rgba(zygote: Zygote, name: str) -> None:
    """Grey, palette, CMYK and 16-bit pictures become RGB, or RGBA where something shows through."""
    data, wanted = PICTURES[name]
    assert is_near((await seen(zygote, data)).getpixel((1, 1)), wanted, 3)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
async def test_what_is_encoded_is_what_was_given(zygote: Zygote, output: ImageKind, mode: str) -> None:
    """Each format shows the rows that it was made from; JPEG lays them on white."""
    picture = two_halves(200, 100).convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    pixels = await decode(zygote, saved(picture, "PNG"))
    made = Image.open(io.BytesIO(await encoded(zygote, pixels, output, 95)))
    os.close(pixels.fd)
    wanted = picture
    if output is ImageKind.JPEG and mode == "RGBA":
        wanted = Image.new("RGB", picture.size, "white")
        wanted.paste(picture, mask=picture.getchannel("A"))
    assert made.mode == wanted.mode
    for at in ((10, 95), (150, 20)):
        found, right = made.getpixel(at), wanted.getpixel(at)
        assert isinstance(right, tuple)
        assert is_near(found, tuple(int(value) for value in right), 0 if output is ImageKind.PNG else 10)


async def test_heic_is_never_an_output(zygote: Zygote) -> None:
    """Lethe does not make HEIC."""
    pixels = await decode(zygote, saved(two_halves(), "PNG"))
    with pytest.raises(EncodingFailed):
        await zygote.encode(pixels, kind=ImageKind.HEIC, quality=90)
    os.close(pixels.fd)


async def test_the_upload_stays_the_callers(zygote: Zygote) -> None:
    """What the caller gave is the same afterwards, and the caller's to overwrite."""
    data = marked(ImageKind.JPEG)
    fd = os.memfd_create("test-upload")
    os.write(fd, data)
    taken(await zygote.decode(Upload(fd=fd, size_bytes=len(data))))
    with mmap.mmap(fd, len(data)) as memory:
        assert memory[:] == data
        memory[:] = bytes(len(data))
    os.close(fd)


async def test_many_at_once(zygote: Zygote) -> None:
    """Good and bad pictures at the same time get each its own answer."""
    good, bad = marked(ImageKind.JPEG), REFUSED["png_cut"]
    answers = await asyncio.gather(
        *(decode(zygote, bad if number % 3 == 0 else good) for number in range(24)), return_exceptions=True
    )
    for number, answer in enumerate(answers):
        assert isinstance(answer, InvalidImage if number % 3 == 0 else Pixels)
        if isinstance(answer, Pixels):
            os.close(answer.fd)


async def test_no_descriptor_is_left(zygote: Zygote) -> None:
    """Failed, cancelled and finished work leaves no descriptor behind in the worker."""
    taken(await decode(zygote, marked(ImageKind.PNG)))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("text", "png_cut", "huge_png"):
        with pytest.raises(InvalidImage):
            await decode(zygote, REFUSED[name])
    task = asyncio.create_task(decode(zygote, marked(ImageKind.HEIC)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    taken(await decode(zygote, marked(ImageKind.PNG)))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(list(ImageKind)),
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=6),
)
async def test_spoilt_pictures_do_no_harm(zygote: Zygote, kind: ImageKind, places: list[tuple[float, bytes]]) -> None:
    """A picture with bytes changed anywhere is decoded or refused, and the zygote stays up."""
    data = bytearray(marked(kind))
    for place, noise in places:
        at = int(place * len(data))
        data[at : at + len(noise)] = noise
    try:
        taken(await decode(zygote, bytes(data)))
    except InvalidImage as refused:
        assert refused.code is not ImageFault.TIMEOUT  # noqa: PT017 - both ends are right
    assert zygote.pid is not None


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(min_size=1, max_size=300), head=st.sampled_from([b"", b"\xff\xd8\xff", PNG_SIGNATURE]))
async def test_noise_is_refused(zygote: Zygote, noise: bytes, head: bytes) -> None:
    """Random bytes are no picture."""
    with pytest.raises(InvalidImage):
        await decode(zygote, head + noise)


async def test_a_picture_that_crashes_its_codec_is_refused(zygote: Zygote) -> None:
    """Found by `make fuzz`: the HEIC reader takes a metadata type that is no text for one, and dies of it; alone."""
    before = zygote.pid
    picture = marked(ImageKind.HEIC)
    spoilt = picture.replace(b"application/rdf+xml", b"\x9f" * len(b"application/rdf+xml"))
    assert spoilt != picture
    with pytest.raises(InvalidImage) as refused:
        await decode(zygote, spoilt)
    assert refused.value.code is ImageFault.DECODER_KILLED
    assert (await decode(zygote, picture)).width > 0
    assert zygote.pid == before

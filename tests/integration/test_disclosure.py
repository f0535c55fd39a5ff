"""A third party gets pixels in a file, small enough for it, and nothing of what the upload told beside them."""

import io
import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from PIL import Image

from broker.sniff import ImageKind
from providers.base import File, Pixels, Upload
from providers.failures import FailureKind, ProviderFailure
from tests.delivery import output_memories
from tests.images_corpus import BLOCKS, LEFT, RIGHT, marked, marker, saved, two_halves
from workers.disclosure import clean_file
from workers.images.errors import EncodingFailed
from workers.images.formats import check
from workers.images.orders import ImageLimits
from workers.images.zygote import Zygote

pytestmark = pytest.mark.asyncio(loop_scope="module")

JPEG, PNG, WEBP = "image/jpeg", "image/png", "image/webp"
USUAL = frozenset({JPEG, PNG})
PLENTY = 20_000_000


class Watched(Zygote):
    """Keeps a second descriptor of every file that it makes, so that a test sees what became of the memory."""

    def __init__(self, limits: ImageLimits, *, children: int, program: str) -> None:
        super().__init__(limits, children=children, program=program)
        self.made: list[int] = []

    async def encode(self, pixels: Pixels, *, kind: ImageKind, quality: int = 92, longest_side: int = 0) -> Upload:
        upload = await super().encode(pixels, kind=kind, quality=quality, longest_side=longest_side)
        self.made.append(os.dup(upload.fd))
        return upload

    def sizes(self) -> list[int]:
        """The sizes of the files made since the last call; one that was overwritten is empty."""
        made, self.made = self.made, []
        try:
            return [os.fstat(fd).st_size for fd in made]
        finally:
            for fd in made:
                os.close(fd)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote() -> AsyncIterator[Watched]:
    started = await Watched.start(ImageLimits(max_pixels=5_000_000))
    yield started
    await started.aclose()


@pytest.fixture(autouse=True)
def nothing_left(zygote: Watched) -> Iterator[None]:
    yield
    zygote.sizes()
    assert output_memories() == []


async def decoded(zygote: Zygote, data: bytes) -> Pixels:
    fd = os.memfd_create("test-upload")
    try:
        os.write(fd, data)
        return await zygote.decode(Upload(fd=fd, size_bytes=len(data)))
    finally:
        os.close(fd)


async def made(
    zygote: Zygote,
    data: bytes,
    *,
    media_types: frozenset[str] = USUAL,
    max_bytes: int = PLENTY,
    max_pixels: int | None = None,
) -> tuple[File, bytes]:
    """Make the file of an upload; return it, and its bytes, with every descriptor closed."""
    pixels = await decoded(zygote, data)
    try:
        file = await clean_file(zygote, pixels, media_types=media_types, max_bytes=max_bytes, max_pixels=max_pixels)
    finally:
        os.close(pixels.fd)
    content = os.pread(file.fd, file.size_bytes + 1, 0)
    os.close(file.fd)
    assert len(content) == file.size_bytes
    return file, content


async def refused(
    zygote: Zygote,
    data: bytes,
    *,
    media_types: frozenset[str] = USUAL,
    max_bytes: int = PLENTY,
    max_pixels: int = PLENTY,
) -> str:
    with pytest.raises(ProviderFailure) as caught:
        await made(zygote, data, media_types=media_types, max_bytes=max_bytes, max_pixels=max_pixels)
    assert caught.value.kind is FailureKind.UNSUPPORTED
    assert caught.value.is_unsent
    return caught.value.detail


def noise(width: int = 400, height: int = 300) -> bytes:
    return saved(Image.merge("RGB", [Image.effect_noise((width, height), 120) for _ in range(3)]), "PNG")


@pytest.mark.parametrize("kind", list(ImageKind))
@pytest.mark.parametrize("media_type", [JPEG, PNG, WEBP])
async def test_no_marker_leaves(zygote: Watched, kind: ImageKind, media_type: str) -> None:
    """EXIF, place, XMP, comments, profiles, thumbnails, trailers: nothing of them is in the file; the pixels are."""
    data = marked(kind)
    assert [block for block in BLOCKS[kind] if marker(block) not in data] == []
    file, content = await made(zygote, data, media_types=frozenset({media_type}))
    assert b"LETHE-MARKER" not in content
    assert b"Exif" not in content
    check(content, ImageKind(media_type.removeprefix("image/")))
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (file.width, file.height)
        assert picture.get_format_mimetype() == file.media_type == media_type
        pixels = picture.convert("RGB").tobytes()
    assert abs(sum(pixels[0::3]) / len(pixels[0::3]) - (LEFT[0] + RIGHT[0]) / 2) < 12


async def test_jpeg_is_the_usual_form(zygote: Watched) -> None:
    """A picture without transparency goes as JPEG, at the best quality that is offered, once."""
    file, _ = await made(zygote, noise(), media_types=frozenset({JPEG, PNG, WEBP}))
    assert (file.media_type, file.width, file.height) == (JPEG, 400, 300)
    assert zygote.sizes() == [file.size_bytes]


async def test_transparency_is_kept_where_it_can_be(zygote: Watched) -> None:
    """What shows something through goes as PNG; as JPEG, on white, only where PNG is not taken or too large."""
    picture = two_halves()
    picture.putalpha(0)
    data = saved(picture, "PNG")
    file, content = await made(zygote, data)
    assert file.media_type == PNG
    assert Image.open(io.BytesIO(content)).mode == "RGBA"
    file, content = await made(zygote, data, media_types=frozenset({JPEG}))
    assert file.media_type == JPEG
    assert Image.open(io.BytesIO(content)).getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("media_types", [USUAL, frozenset({WEBP})])
async def test_a_smaller_file_is_made_where_one_is_wanted(zygote: Watched, media_types: frozenset[str]) -> None:
    """Quality goes down in steps until the file fits, and no further; what did not fit is overwritten."""
    picture = noise()
    best, _ = await made(zygote, picture, media_types=media_types)
    zygote.sizes()
    second, _ = await made(zygote, picture, media_types=media_types, max_bytes=best.size_bytes - 1)
    assert zygote.sizes() == [0, second.size_bytes]
    again, _ = await made(zygote, picture, media_types=media_types, max_bytes=best.size_bytes)
    assert again.size_bytes == best.size_bytes
    third, _ = await made(zygote, picture, media_types=media_types, max_bytes=second.size_bytes - 1)
    assert third.size_bytes < second.size_bytes < best.size_bytes
    assert (third.width, third.height) == (400, 300)


async def test_what_cannot_be_small_enough_is_refused(zygote: Watched) -> None:
    """A picture that fits in no form is unsupported here, and every file that was made of it is overwritten."""
    assert await refused(zygote, noise(), max_bytes=9000) == "picture_too_large"
    assert zygote.sizes() == [0, 0, 0, 0]
    assert await refused(zygote, noise(), media_types=frozenset({PNG}), max_bytes=9000) == "picture_too_large"
    assert zygote.sizes() == [0]


async def test_pixels_are_never_made_fewer(zygote: Watched) -> None:
    """More pixels than the provider takes is unsupported, before anything is made; as many as it takes is not."""
    assert await refused(zygote, noise(), max_pixels=400 * 300 - 1) == "too_many_pixels"
    assert await refused(zygote, noise(), media_types=frozenset({"image/avif"})) == "media_type"
    assert zygote.sizes() == []
    file, _ = await made(zygote, noise(), max_pixels=400 * 300)
    assert (file.width, file.height) == (400, 300)


async def test_a_failing_encoder_leaves_nothing(zygote: Watched) -> None:
    """Pixels that are not there raise, and no file stays behind."""
    fd = os.memfd_create("test-pixels")
    try:
        pixels = Pixels(fd=fd, width=100, height=100, channels=3)
        with pytest.raises(EncodingFailed):
            await clean_file(zygote, pixels, media_types=USUAL, max_bytes=PLENTY, max_pixels=None)
    finally:
        os.close(fd)
    assert zygote.sizes() == []

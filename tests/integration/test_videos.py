"""Videos are cleaned in a sandboxed child, like pictures; bad ones are refused, and the zygote stays up."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from providers.base import Upload
from tests.images_corpus import saved, two_halves
from tests.videos_corpus import REAL, box, ftyp, marked_mp4, marked_webm, moov
from workers.images.errors import EncodingFailed, ImageFault
from workers.images.orders import ImageLimits
from workers.images.zygote import Video, Zygote

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote() -> AsyncIterator[Zygote]:
    started = await Zygote.start(ImageLimits(max_pixels=1_000_000, timeout_s=20.0))
    first = started.pid
    yield started
    assert started.pid == first, "an input took the zygote down"
    await started.aclose()


def memory(data: bytes) -> Upload:
    fd = os.memfd_create("test-video")
    os.write(fd, data)
    return Upload(fd=fd, size_bytes=len(data))


async def cleaned(zygote: Zygote, data: bytes) -> tuple[Video, bytes]:
    """Clean a video; return it, and its bytes, with every descriptor closed."""
    given = memory(data)
    try:
        video = await zygote.clean_video(given)
        assert os.pread(given.fd, len(data) + 1, 0) == data
    finally:
        os.close(given.fd)
    content = os.pread(video.fd, video.size_bytes + 1, 0)
    os.close(video.fd)
    assert len(content) == video.size_bytes
    return video, content


async def refused(zygote: Zygote, data: bytes) -> ImageFault:
    with pytest.raises(EncodingFailed) as caught:
        await cleaned(zygote, data)
    return caught.value.code


@pytest.mark.parametrize("data", [marked_mp4(), marked_webm(), *REAL.values()])
async def test_no_marker_survives(zygote: Zygote, data: bytes) -> None:
    """What comes out of the child is clean, as long as what went in, and tells its size; the original is untouched."""
    assert b"LETHE-MARKER" in data
    video, content = await cleaned(zygote, data)
    assert b"LETHE-MARKER" not in content
    assert len(content) == len(data)
    assert (video.width, video.height) in {(640, 360), (64, 48)}


async def test_what_is_no_video_is_refused(zygote: Zygote) -> None:
    """Bad input has a code, and the next video works."""
    png = saved(two_halves(), "PNG")
    wanted = {
        b"": ImageFault.NOT_A_VIDEO,
        b"x": ImageFault.NOT_A_VIDEO,
        png: ImageFault.NOT_A_VIDEO,
        ftyp() + moov()[:-1]: ImageFault.TRUNCATED,
        REAL["mp4"][:-1]: ImageFault.TRUNCATED,
    }
    for data, code in wanted.items():
        assert await refused(zygote, data) == code
    await cleaned(zygote, REAL["webm"])


async def test_a_large_video_takes_little_time(zygote: Zygote) -> None:
    """What lies in media data is not gone through: 64 MB are a copy."""
    media = box(b"mdat", bytes(64 << 20))
    started_s = time.monotonic()
    _, content = await cleaned(zygote, ftyp() + moov() + media)
    assert content.endswith(media)
    assert time.monotonic() - started_s < 5


async def test_a_video_that_takes_too_long_is_given_up() -> None:
    """Millions of boxes end at the time limit."""
    impatient = await Zygote.start(ImageLimits(timeout_s=1.0))
    try:
        assert await refused(impatient, ftyp() + box(b"free") * 3_000_000) == ImageFault.TIMEOUT
        await cleaned(impatient, REAL["mp4"])
    finally:
        await impatient.aclose()


async def test_many_at_once(zygote: Zygote) -> None:
    """Each video has a child of its own."""
    for _, content in await asyncio.gather(*(cleaned(zygote, data) for data in [*REAL.values()] * 4)):
        assert b"LETHE-MARKER" not in content

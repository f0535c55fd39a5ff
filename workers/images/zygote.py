"""
The worker's side of image handling: hands descriptors to the zygote process and never touches a codec itself.

Start it before the worker reads a secret. The zygote is executed afresh with an empty environment, so that a later
restart carries nothing over either.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Generator
from typing import Final, Self

import msgspec

from broker.sniff import ImageKind
from providers.base import Pixels, Upload
from providers.memory import overwrite
from workers.images.errors import EncodingFailed, ImageFault, InvalidImage, SandboxUnavailable
from workers.images.line import NURSERY, Line, ZygoteGone
from workers.images.orders import CleanOrder, DecodeOrder, EncodeOrder, ImageLimits, Order, Verdict

_SPARE_BYTES: Final = 1 << 20
_RGBA: Final = 4
_MAX_SIDE: Final = 65_535
_GRACE_S: Final = 5.0  # beyond an order's own timeout, which the zygote keeps


class Video(msgspec.Struct, frozen=True, kw_only=True):
    """A video without metadata in shared memory; width and height are 0 where its container does not tell."""

    fd: int
    size_bytes: int
    width: int
    height: int


class Zygote:
    """Decodes and encodes pictures, each in a sandboxed process of its own that is gone before the answer comes."""

    def __init__(self, limits: ImageLimits, *, children: int, program: str) -> None:
        self._limits = limits
        self._program = program
        self._slots = asyncio.Semaphore(children)
        self._starting = asyncio.Lock()
        self._line: Line | None = None
        self._is_closed = False

    @classmethod
    async def start(cls, limits: ImageLimits, *, children: int = 4, program: str = NURSERY) -> Self:
        """Start the process and wait for its codecs; raise SandboxUnavailable where children cannot be fenced in."""
        zygote = cls(limits, children=children, program=program)
        await zygote._open_line()
        return zygote

    @property
    def pid(self) -> int | None:
        """Tell the zygote's process id, if it is alive."""
        return self._line.pid if self._line is not None and not self._line.is_broken else None

    async def decode(self, upload: Upload, *, limits: ImageLimits | None = None) -> Pixels:
        """Turn an untrusted file into rows; raise InvalidImage. The caller closes the descriptor of both."""
        most = limits or self._limits
        if upload.size_bytes == 0:
            raise InvalidImage(ImageFault.NOT_AN_IMAGE)
        capacity_bytes = most.max_pixels * _RGBA

        def order(number: int) -> Order:
            return DecodeOrder(number=number, size_bytes=upload.size_bytes, capacity_bytes=capacity_bytes, limits=most)

        with _memory("lethe-pixels", capacity_bytes) as made_fd:
            verdict = await self._carry_out(order, upload.fd, made_fd, most)
            if verdict.fault is not None:
                raise InvalidImage(verdict.fault)
            pixels = Pixels(fd=made_fd, width=verdict.width, height=verdict.height, channels=verdict.channels)
            if not _is_plausible(pixels, most):
                raise InvalidImage(ImageFault.DECODER_FAILED)
            os.ftruncate(made_fd, pixels.size_bytes)
        return pixels

    async def encode(self, pixels: Pixels, *, kind: ImageKind, quality: int = 92, longest_side: int = 0) -> Upload:
        """
        Turn rows into a file without metadata, smaller where `longest_side` says so; raise EncodingFailed.

        The caller closes the descriptor of both.
        """
        capacity_bytes = pixels.size_bytes * 2 + _SPARE_BYTES

        def order(number: int) -> Order:
            return EncodeOrder(
                number=number,
                width=pixels.width,
                height=pixels.height,
                channels=pixels.channels,
                kind=kind,
                quality=quality,
                longest_side=longest_side,
                capacity_bytes=capacity_bytes,
                limits=msgspec.structs.replace(self._limits, max_pixels=pixels.width * pixels.height),
            )

        with _memory("lethe-output", capacity_bytes) as made_fd:
            verdict = await self._carry_out(order, pixels.fd, made_fd, self._limits)
            if verdict.fault is not None:
                raise EncodingFailed(verdict.fault)
            if not 0 < verdict.size_bytes <= capacity_bytes:
                raise EncodingFailed(ImageFault.ENCODER_FAILED)
            os.ftruncate(made_fd, verdict.size_bytes)
        return Upload(fd=made_fd, size_bytes=verdict.size_bytes)

    async def clean_video(self, video: Upload) -> Video:
        """Copy a video without its metadata; raise EncodingFailed. The caller closes the descriptor of both."""
        if video.size_bytes == 0:
            raise EncodingFailed(ImageFault.NOT_A_VIDEO)

        def order(number: int) -> Order:
            return CleanOrder(number=number, size_bytes=video.size_bytes, limits=self._limits)

        with _memory("lethe-video", video.size_bytes) as made_fd:
            verdict = await self._carry_out(order, video.fd, made_fd, self._limits)
            if verdict.fault is not None:
                raise EncodingFailed(verdict.fault)
            width, height = verdict.width, verdict.height
            if not (0 <= width <= _MAX_SIDE and 0 <= height <= _MAX_SIDE):
                raise EncodingFailed(ImageFault.NOT_A_VIDEO)
        return Video(fd=made_fd, size_bytes=video.size_bytes, width=width, height=height)

    async def aclose(self) -> None:
        """End the zygote, and with it every child; what is still open fails with SandboxUnavailable."""
        self._is_closed = True
        if self._line is not None:
            await self._line.aclose()

    async def _carry_out(
        self, order: Callable[[int], Order], given_fd: int, made_fd: int, limits: ImageLimits
    ) -> Verdict:
        """Have it done by a living zygote; a second death in a row is blamed on the picture."""
        async with self._slots:
            for _ in range(2):
                line = await self._open_line()
                with contextlib.suppress(ZygoteGone):
                    return await line.carry_out(order, given_fd, made_fd, limits.timeout_s + _GRACE_S)
        return Verdict(fault=ImageFault.DECODER_KILLED)

    async def _open_line(self) -> Line:
        async with self._starting:
            if self._is_closed:
                raise SandboxUnavailable("closed")
            if self._line is None or self._line.is_broken:
                if self._line is not None:
                    await self._line.aclose()
                self._line = await Line.open(self._program)
            return self._line


@contextlib.contextmanager
def _memory(name: str, size_bytes: int) -> Generator[int]:
    """Make shared memory of a fixed size; it takes room only where it is written, and is wiped on any error."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size_bytes)
        yield fd
    except BaseException:
        try:
            overwrite(fd)
        finally:
            os.close(fd)
        raise


def _is_plausible(pixels: Pixels, limits: ImageLimits) -> bool:
    return (
        pixels.channels in (3, _RGBA)
        and min(pixels.width, pixels.height) >= 1
        and pixels.width * pixels.height <= limits.max_pixels
    )

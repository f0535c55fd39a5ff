"""Stand-in for the zygote: the same codecs by the same code, in threads of the worker's own process."""

import asyncio
import mmap
from collections.abc import Callable
from typing import Self

from workers.images.decode import decode
from workers.images.encode import encode
from workers.images.errors import EncodingFailed, InvalidImage
from workers.images.line import NURSERY
from workers.images.nursery import warm
from workers.images.orders import CleanOrder, DecodeOrder, EncodeOrder, ImageLimits, Order, StopOrder, Verdict
from workers.images.videos import clean
from workers.images.zygote import Zygote


class Unfenced(Zygote):
    """Decodes, encodes and cleans as many at once as the zygote would, without a process for each."""

    @classmethod
    async def start(cls, limits: ImageLimits, *, children: int = 4, program: str = NURSERY) -> Self:
        """Load the codecs."""
        warm()
        return cls(limits, children=children, program=program)

    async def _carry_out(
        self, order: Callable[[int], Order], given_fd: int, made_fd: int, limits: ImageLimits
    ) -> Verdict:
        async with self._slots:
            return await asyncio.to_thread(_carried_out, order(1), given_fd, made_fd)


def _carried_out(order: Order, given_fd: int, made_fd: int) -> Verdict:
    try:
        match order:
            case DecodeOrder():
                return _decoded(order, given_fd, made_fd)
            case EncodeOrder():
                return _encoded(order, given_fd, made_fd)
            case CleanOrder():
                return _cleaned(order, given_fd, made_fd)
            case StopOrder():
                raise AssertionError("nobody stops a thread")
    except (InvalidImage, EncodingFailed) as exc:
        return Verdict(fault=exc.code)


def _decoded(order: DecodeOrder, given_fd: int, made_fd: int) -> Verdict:
    source = mmap.mmap(given_fd, order.size_bytes, prot=mmap.PROT_READ)
    with mmap.mmap(made_fd, order.capacity_bytes) as rows:
        width, height, channels = decode(source, rows, order.limits)
    return Verdict(width=width, height=height, channels=channels)


def _encoded(order: EncodeOrder, given_fd: int, made_fd: int) -> Verdict:
    rows = mmap.mmap(given_fd, order.width * order.height * order.channels, prot=mmap.PROT_READ)
    with mmap.mmap(made_fd, order.capacity_bytes) as sheet:
        return Verdict(size_bytes=encode(rows, sheet, order))


def _cleaned(order: CleanOrder, given_fd: int, made_fd: int) -> Verdict:
    video = mmap.mmap(given_fd, order.size_bytes, prot=mmap.PROT_READ)
    with mmap.mmap(made_fd, order.size_bytes) as made:
        width, height = clean(video, made)
    return Verdict(width=width, height=height, size_bytes=order.size_bytes)

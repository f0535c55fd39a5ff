"""Pictures in shared memory as arrays: mapped in place, never copied, overwritten before they are let go."""

import mmap
import os

import numpy as np
from numpy.typing import NDArray

from providers.base import Pixels, Task, Terms
from providers.failures import FailureKind, ProviderFailure
from workers.plaintext import let_go

Frame = NDArray[np.uint8]
"""Rows × columns × channels."""


def only_pixels(task: Task, terms: Terms) -> Pixels:
    """Return the one decoded picture of a task that a model can do; raise ProviderFailure for any other task."""
    if task.operation not in terms.operations:
        raise ProviderFailure(FailureKind.UNSUPPORTED, "operation")
    picture = task.pictures[0] if len(task.pictures) == 1 else None
    if not isinstance(picture, Pixels):
        raise ProviderFailure(FailureKind.INVALID_INPUT, "not_pixels")
    return picture


def frame(pixels: Pixels, *, writable: bool = False) -> Frame:
    """Map a picture; it is unmapped when the last array over it goes."""
    if pixels.channels not in {3, 4} or pixels.width < 1 or pixels.height < 1:
        raise ProviderFailure(FailureKind.INVALID_INPUT, "pixels_shape")
    if os.fstat(pixels.fd).st_size < pixels.size_bytes:
        raise ProviderFailure(FailureKind.INVALID_INPUT, "pixels_short")
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    mapped = mmap.mmap(pixels.fd, pixels.size_bytes, access=access)
    return np.frombuffer(mapped, np.uint8).reshape(pixels.height, pixels.width, pixels.channels)


def blank(width: int, height: int, channels: int) -> Pixels:
    """Make an empty picture in new shared memory; the caller owns its descriptor."""
    fd = os.memfd_create("pixels")
    pixels = Pixels(fd=fd, width=width, height=height, channels=channels)
    os.ftruncate(fd, pixels.size_bytes)
    return pixels


def destroy(pixels: Pixels) -> None:
    """Overwrite a picture and give its memory back."""
    let_go(pixels.fd)

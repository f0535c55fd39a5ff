"""Pictures for tests: drawn from a seed, with edges, gradients and grain as photos have them."""

import os

import numpy as np
from numpy.typing import NDArray

from providers.base import Pixels, Upload
from workers.models.frames import blank, frame


def photo(width: int, height: int, *, channels: int = 3, seed: int = 1) -> NDArray[np.uint8]:
    """Draw waves, discs with hard edges, a gradient and grain."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [80 * np.sin(columns / 17 + rows / 31), 70 * np.sin(columns / 5) * np.cos(rows / 23), rows / height * 90]
    drawn = np.stack([128 + wave for wave in [*waves, columns / width * 120][:channels]], axis=-1)
    for _ in range(max(8, width * height // 2000)):
        x, y, radius = random.integers(0, width), random.integers(0, height), random.integers(2, 25)
        drawn[(columns - x) ** 2 + (rows - y) ** 2 < radius**2] = random.integers(0, 256, channels)
    drawn += random.normal(0, 6, drawn.shape)
    return drawn.clip(0, 255).astype(np.uint8)


def in_memory(picture: NDArray[np.uint8]) -> Pixels:
    """Put a picture into shared memory."""
    height, width, channels = picture.shape
    pixels = blank(width, height, channels)
    frame(pixels, writable=True)[...] = picture
    return pixels


def upload_in_memory(content: bytes) -> Upload:
    """Put a file into shared memory."""
    fd = os.memfd_create("upload")
    os.write(fd, content)
    return Upload(fd=fd, size_bytes=len(content))

"""One neural network on the device there is (Vulkan GPU, else CPU), as a function from pixels to pixels."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from providers.failures import FailureKind, ProviderFailure
from workers.models.frames import Frame
from workers.models.tiles import Box, Tile
from workers.models.weights import Weights, find

# Read by OpenMP when ncnn loads. Its threads spin at every barrier by default: with one other busy process on two cores
# a picture took 3.2 s instead of 0.47 s.
os.putenv("GOMP_SPINCOUNT", "1000")
import ncnn


@contextmanager
def _stderr_silenced() -> Generator[None]:
    # The loader of the Vulkan library writes to descriptor 2 itself, once per path it tries.
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@cache
def has_gpu() -> bool:
    """Tell whether this machine has a device that Vulkan can use."""
    with _stderr_silenced():
        return ncnn.get_gpu_count() > 0


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


class Scratch:
    """Memory for one picture's run, reused from tile to tile and given back to the allocator after it."""

    def __init__(self) -> None:
        self.blobs = ncnn.PoolAllocator()
        self.workspace = ncnn.PoolAllocator()
        for pool in (self.blobs, self.workspace):
            pool.set_size_compare_ratio(0.5)

    def clear(self) -> None:
        """Free all of it; freed heap is perturbed (GLIBC_TUNABLES), larger blocks go back to the kernel."""
        self.blobs.clear()
        self.workspace.clear()


class Network:
    """A loaded model."""

    def __init__(self, weights: Weights) -> None:
        self._net = ncnn.Net()
        self._net.opt.use_vulkan_compute = has_gpu()
        self._net.opt.num_threads = cores()
        for load, file in ((self._net.load_param, weights.param), (self._net.load_model, weights.weights)):
            if load(str(file)) != 0:
                raise ProviderFailure(FailureKind.PROVIDER_ERROR, f"weights file {file.name} does not load")

    @classmethod
    def load(cls, models_dir: Path, model: str) -> "Network":
        """Load a model whose files are proven whole."""
        return cls(find(models_dir, model))

    def infer(self, picture: Frame, tile: Tile, *, keep: Box, into: Frame, scratch: Scratch) -> None:
        """Run the tile's source; write the part `keep` of the answer, rounded to bytes, into an RGB array."""
        height, width, channels = picture.shape
        kind = ncnn.Mat.PixelType.PIXEL_RGB if channels == 3 else ncnn.Mat.PixelType.PIXEL_RGBA2RGB
        box = tile.source
        given = ncnn.Mat.from_pixels_roi(picture, kind, width, height, box.left, box.top, box.width, box.height)
        made = ncnn.Mat()
        extractor = self._net.create_extractor()
        try:
            given.substract_mean_normalize([], [1 / 255] * 3)
            extractor.set_blob_allocator(scratch.blobs)
            extractor.set_workspace_allocator(scratch.workspace)
            extractor.input("data", given)
            status, made = extractor.extract("output")
            if status != 0:
                raise ProviderFailure(FailureKind.PROVIDER_ERROR, f"ncnn_status_{status}")
            _round(made, keep, into)
        finally:
            # Before the pools are cleared: nothing may point into them, whatever a traceback holds.
            made.release()
            given.release()
            extractor.clear()

    def close(self) -> None:
        """Let go of the weights."""
        self._net.clear()


def _round(made: ncnn.Mat, keep: Box, into: Frame) -> None:
    answer = made.numpy()[:, *keep.slices]
    answer *= 255
    answer += 0.5
    np.clip(answer, 0, 255, out=answer)
    np.copyto(into, answer.transpose(1, 2, 0), casting="unsafe")

"""Times the model without a broker: the bare ncnn loop, or the provider; prints one line of JSON."""

import argparse
import asyncio
import json
import os
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bench.machine import peak_rss_bytes
from providers.base import Handle, Pixels, Task
from workers.models.frames import blank, destroy, frame
from workers.models.network import has_gpu, ncnn
from workers.models.upscale import Upscale


def picture(width: int, height: int) -> NDArray[np.uint8]:
    """Draw stripes and grain in whole bytes: a float picture would count in the peak of memory."""
    drawn = np.random.default_rng(1).integers(0, 16, (height, width, 3), dtype=np.uint8)
    drawn += (np.arange(width, dtype=np.uint8) % 21 * 11)[:, np.newaxis]
    return drawn


class Bare:
    """The plain loop of the ncnn documentation: one network on default options, the picture whole or in bare cuts."""

    def __init__(self, models_dir: Path, *, scale: int, quality: str, cut_px: int) -> None:
        model = "realesrgan-x4plus" if quality == "best" else f"realesr-animevideov3-x{scale}"
        self._scale = 4 if quality == "best" else scale
        self._cut_px = cut_px
        self._net = ncnn.Net()
        self._net.opt.use_vulkan_compute = has_gpu()
        self._net.opt.num_threads = len(os.sched_getaffinity(0))
        assert self._net.load_param(str(models_dir / f"{model}.param")) == 0
        assert self._net.load_model(str(models_dir / f"{model}.bin")) == 0

    def __call__(self, given: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Upscale one picture."""
        height, width, _ = given.shape
        made = np.empty((height * self._scale, width * self._scale, 3), np.uint8)
        for top in range(0, height, self._cut_px):
            for left in range(0, width, self._cut_px):
                part = np.ascontiguousarray(given[top : top + self._cut_px, left : left + self._cut_px])
                answer = self._infer(part)
                rows, columns, _ = answer.shape
                made[top * self._scale :, left * self._scale :][:rows, :columns] = answer
        return made

    def _infer(self, part: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width, _ = part.shape
        given = ncnn.Mat.from_pixels(part, ncnn.Mat.PixelType.PIXEL_RGB, width, height)
        given.substract_mean_normalize([], [1 / 255] * 3)
        extractor = self._net.create_extractor()
        extractor.input("data", given)
        status, made = extractor.extract("output")
        assert status == 0
        return (made.numpy() * 255 + 0.5).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


def time_bare(options: argparse.Namespace, given: NDArray[np.uint8]) -> list[float]:
    """Time the bare loop; the first round is for warming."""
    cut_px = options.cut or max(given.shape)
    bare = Bare(options.models, scale=options.scale, quality=options.quality, cut_px=cut_px)
    times_s: list[float] = []
    for _ in range(options.rounds + 1):
        began = perf_counter()
        bare(given)
        times_s.append(perf_counter() - began)
    return times_s[1:] or times_s


async def time_provider(options: argparse.Namespace, given: NDArray[np.uint8]) -> list[float]:
    """Time the provider on the same picture, from shared memory to shared memory."""
    pixels = blank(given.shape[1], given.shape[0], 3)
    frame(pixels, writable=True)[...] = given
    provider = Upscale(options.models)
    await provider.warm()
    times_s = [await _once(provider, options, pixels) for _ in range(options.rounds + 1)]
    await provider.aclose()
    destroy(pixels)
    return times_s[1:] or times_s


async def _once(provider: Upscale, options: argparse.Namespace, pixels: Pixels) -> float:
    parameters = {"scale": options.scale, "quality": options.quality}
    task = Task(attempt="bench", operation="upscale", parameters=parameters, pictures=(pixels,), deadline_s=86_400)
    began = perf_counter()
    result = (await provider.submit(task, _Unheard())).outputs[0].pixels
    assert result is not None
    took_s = perf_counter() - began
    destroy(result)
    return took_s


class _Unheard:
    async def accepted(self, handle: Handle) -> None:
        pass

    async def progressed(self, share: float) -> None:
        pass


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loop", choices=["bare", "provider"])
    parser.add_argument("--models", type=Path, default=Path(".lethe/data/models"))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--scale", type=int, choices=[2, 3, 4], default=2)
    parser.add_argument("--quality", choices=["fast", "best"], default="fast")
    parser.add_argument("--cut", type=int, default=0, help="bare loop: side of a cut in pixels, 0 for whole")
    parser.add_argument("--rounds", type=int, default=10, help="timed rounds, after one that is not; 0 times that one")
    return parser.parse_args()


def main() -> None:
    """Run one loop."""
    options = _options()
    given = picture(options.width, options.height)
    times_s = time_bare(options, given) if options.loop == "bare" else asyncio.run(time_provider(options, given))
    figures = {
        "loop": options.loop,
        "variant": "best" if options.quality == "best" else f"fast-{options.scale}",
        "width": options.width,
        "height": options.height,
        "rounds": options.rounds,
        "p50_s": round(sorted(times_s)[len(times_s) // 2], 4),
        "best_s": round(min(times_s), 4),
        "peak_rss_bytes": peak_rss_bytes(os.getpid()),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

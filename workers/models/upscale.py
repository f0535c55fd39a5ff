"""Makes photos two to four times larger with Real-ESRGAN; the weights stay loaded, nothing of a picture does."""

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import ClassVar

import msgspec
import numpy as np
from PIL import Image

from providers.base import Estimate, Exposure, Output, Pixels, Progress, Reporter, Share, Snapshot, Takes, Task, Terms
from providers.estimates import PIXELS_PER_MEGAPIXEL, SCALES, estimate, scale_of, variant_of
from providers.failures import FailureKind, ProviderFailure
from providers.inline import Inline
from workers.models.frames import Frame, only_pixels
from workers.models.network import Network, Scratch
from workers.models.painter import Painter
from workers.models.tiles import Box, Tile, plan


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One model and how its pictures are cut; `trial_px` is the side of the tile that is timed at start."""

    model: str
    scale: int
    tile_px: int
    pad_px: int
    trial_px: int
    trials: int


def _fast(scale: int) -> Variant:
    # The model sees 19 px far. Cut at 14 px its answer differs by 1 of 255 at most, also on noise; at 12 by 3.
    model = f"realesr-animevideov3-x{scale}"
    return Variant(model=model, scale=scale, tile_px=128, pad_px=14, trial_px=156, trials=2)


VARIANTS: dict[str, Variant] = {f"fast-{scale}": _fast(scale) for scale in SCALES} | {
    # Small tiles: at 160 px this network needs 1.2 GB. It sees hundreds of pixels far, so seams are small, not nil.
    "best": Variant(model="realesrgan-x4plus", scale=4, tile_px=64, pad_px=16, trial_px=48, trials=1)
}


class Upscale(Inline):
    """The in-house provider of `upscale`."""

    name: ClassVar[str] = "realesrgan"
    terms: ClassVar[Terms] = Terms(
        takes=Takes.PIXELS, operations=frozenset({"upscale"}), exposure=Exposure.LOCAL, retention_s=0
    )

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._painter = Painter()
        self._networks: dict[str, Network] = {}
        self._rates: dict[str, float] = {}

    async def warm(self) -> None:
        """Load every model, refuse weights that are not whole, and time each on a small tile."""
        for name, variant in VARIANTS.items():
            network = await self._painter.call(partial(Network.load, self._models_dir, variant.model))
            self._networks[name] = network
            self._rates[name] = await self._painter.call(partial(_rate, network, variant))

    def speed(self) -> dict[str, float]:
        """Return the seconds per input megapixel of each variant, measured by warm()."""
        return dict(self._rates)

    def estimate(self, parameters: Mapping[str, str | int], *, width: int, height: int) -> Estimate:
        """Expect the cost of a picture on this machine."""
        return estimate(self._rates, parameters, width=width, height=height)

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        """Make a picture `scale` times as large (`scale` 2, 3, 4; `quality` fast, best)."""
        picture = only_pixels(task, self.terms)
        name, scale = variant_of(task.parameters), scale_of(task.parameters)
        if name not in self._networks:
            raise ProviderFailure(FailureKind.OVERLOADED, "not_warm")
        try:
            async with asyncio.timeout(task.deadline_s):
                return await self._upscale(picture, reporter.progressed, name=name, scale=scale)
        except TimeoutError as exc:
            raise ProviderFailure(FailureKind.TIMEOUT) from exc

    async def _upscale(self, picture: Pixels, report: Share, *, name: str, scale: int) -> Snapshot:
        variant = VARIANTS[name]
        brush = _Brush(self._networks[name], variant, scale=scale)
        tiles = plan(picture.width, picture.height, tile_px=variant.tile_px, pad_px=variant.pad_px)
        try:
            pixels, model_s = await self._painter.paint(picture, brush, tiles=tiles, scale=scale, report=report)
        finally:
            brush.scratch.clear()
        return Snapshot(progress=Progress.SUCCEEDED, outputs=(Output(pixels=pixels),), model_s=model_s)

    async def aclose(self) -> None:
        """Let go of the models."""
        for network in self._networks.values():
            await self._painter.call(network.close)
        self._networks.clear()
        self._painter.close()


def _rate(network: Network, variant: Variant) -> float:
    """Return seconds per input megapixel, the overlap of tiles included: the best of the trials after a first."""
    side = variant.trial_px
    picture = np.zeros((side, side, 3), np.uint8)
    whole = Box(left=0, top=0, right=side, bottom=side)
    answer = np.zeros((side * variant.scale, side * variant.scale, 3), np.uint8)
    scratch = Scratch()
    tile, keep = Tile(source=whole, core=whole), whole.scaled(variant.scale)
    times_s: list[float] = []
    for _ in range(1 + variant.trials):
        began = perf_counter()
        network.infer(picture, tile, keep=keep, into=answer, scratch=scratch)
        times_s.append(perf_counter() - began)
    scratch.clear()
    overlap = ((variant.tile_px + 2 * variant.pad_px) / variant.tile_px) ** 2
    return min(times_s[1:]) / side**2 * PIXELS_PER_MEGAPIXEL * overlap


class _Brush:
    """Upscales one tile: the model's own scale straight into the picture, others reduced from its ×4 answer."""

    def __init__(self, network: Network, variant: Variant, *, scale: int) -> None:
        self._network = network
        self._native = variant.scale
        self._scale = scale
        self.scratch = Scratch()

    def __call__(self, source: Frame, target: Frame, tile: Tile) -> None:
        into = target[tile.core.scaled(self._scale).slices]
        crop = tile.crop.scaled(self._scale)
        if self._scale == self._native:
            self._network.infer(source, tile, keep=crop, into=into[..., :3], scratch=self.scratch)
        else:
            into[..., :3] = self._reduced(source, tile)[crop.slices]
        if source.shape[2] == 4:
            alpha = source[tile.source.slices][..., 3]
            into[..., 3] = _resized(alpha, tile.source.scaled(self._scale))[crop.slices]

    def _reduced(self, source: Frame, tile: Tile) -> Frame:
        # Tiles begin on whole input pixels, so that every tile is sampled on the same grid.
        whole = tile.source.within(tile.source).scaled(self._native)
        larger = np.empty((whole.height, whole.width, 3), np.uint8)
        self._network.infer(source, tile, keep=whole, into=larger, scratch=self.scratch)
        reduced = _resized(larger, tile.source.scaled(self._scale))
        larger.fill(0)
        return reduced


def _resized(part: Frame, to: Box) -> Frame:
    image = Image.fromarray(part).resize((to.width, to.height), Image.Resampling.LANCZOS)
    return np.asarray(image)

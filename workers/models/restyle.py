"""Redraws photos with a filter of plain arithmetic; no model, no weights."""

import asyncio
from collections.abc import Mapping
from functools import partial
from time import perf_counter
from typing import ClassVar

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

from providers.base import Estimate, Exposure, Output, Progress, Reporter, Snapshot, Takes, Task, Terms
from providers.estimates import PIXELS_PER_MEGAPIXEL, estimate
from providers.failures import FailureKind, ProviderFailure
from providers.inline import Inline
from workers.models.frames import Frame, only_pixels
from workers.models.painter import Painter
from workers.models.tiles import Box, Tile, plan

TILE_PX = 512
SPREAD_PX = 4
# Pillow blurs by three box passes; beyond four times the radius it sees nothing.
PAD_PX = 4 * SPREAD_PX


class Pencil(Inline):
    """The in-house provider of `restyle` with `filter=pencil`."""

    name: ClassVar[str] = "pencil"
    terms: ClassVar[Terms] = Terms(
        takes=Takes.PIXELS, operations=frozenset({"restyle"}), exposure=Exposure.LOCAL, retention_s=0
    )

    def __init__(self) -> None:
        self._painter = Painter()
        self._rates: dict[str, float] = {}

    async def warm(self) -> None:
        """Time the filter on one tile."""
        self._rates["pencil"] = await self._painter.call(_rate)

    def speed(self) -> dict[str, float]:
        """Return the seconds per input megapixel, measured by warm()."""
        return dict(self._rates)

    def estimate(self, parameters: Mapping[str, str | int], *, width: int, height: int) -> Estimate:
        """Expect the cost of a picture on this machine."""
        return estimate(self._rates, parameters, width=width, height=height)

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        """Make a pencil drawing of the same size; `strength` 1 to 100 makes its lines darker."""
        picture = only_pixels(task, self.terms)
        brush = partial(_draw_tile, _strength(task.parameters))
        tiles = plan(picture.width, picture.height, tile_px=TILE_PX, pad_px=PAD_PX)
        try:
            async with asyncio.timeout(task.deadline_s):
                pixels, model_s = await self._painter.paint(
                    picture, brush, tiles=tiles, scale=1, report=reporter.progressed
                )
        except TimeoutError as exc:
            raise ProviderFailure(FailureKind.TIMEOUT) from exc
        return Snapshot(progress=Progress.SUCCEEDED, outputs=(Output(pixels=pixels),), model_s=model_s)

    async def aclose(self) -> None:
        """End the thread."""
        self._painter.close()


def _strength(parameters: Mapping[str, str | int]) -> int:
    if parameters.get("filter") != "pencil":
        raise ProviderFailure(FailureKind.INVALID_INPUT, "filter")
    strength = parameters.get("strength", 50)
    if not isinstance(strength, int) or not 1 <= strength <= 100:
        raise ProviderFailure(FailureKind.INVALID_INPUT, "strength")
    return strength


def _rate() -> float:
    side = TILE_PX
    picture = np.zeros((side, side, 3), np.uint8)
    whole = Box(left=0, top=0, right=side, bottom=side)
    began = perf_counter()
    _draw_tile(50, picture, np.zeros_like(picture), Tile(source=whole, core=whole))
    return (perf_counter() - began) / side**2 * PIXELS_PER_MEGAPIXEL


def _draw_tile(strength: int, source: Frame, target: Frame, tile: Tile) -> None:
    """Draw a line where a pixel is darker than what surrounds it, over a light shade of the tones."""
    grey = Image.fromarray(source[tile.source.slices][..., :3]).convert("L")
    around = grey.filter(ImageFilter.GaussianBlur(SPREAD_PX))
    lines = ImageOps.invert(ImageChops.subtract(around, grey, scale=8 / (8 + strength)))
    paper = Image.new("L", grey.size, 255)
    drawing = ImageChops.multiply(lines, Image.blend(paper, around, strength / 250))
    drawn = np.asarray(drawing)[tile.crop.slices]
    into = target[tile.core.slices]
    into[..., :3] = drawn[..., np.newaxis]
    into[..., 3:] = source[tile.core.slices][..., 3:]

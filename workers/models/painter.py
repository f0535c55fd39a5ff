"""Paints a new picture tile by tile on one thread of its own, so that the event loop never waits for a model."""

import asyncio
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import TypeVar

from providers.base import Pixels, Share
from workers.models.frames import Frame, blank, destroy, frame
from workers.models.tiles import Tile

T = TypeVar("T")
Brush = Callable[[Frame, Frame, Tile], None]
"""Reads one tile of the first picture and writes its core into the second."""


class Painter:
    """One thread, one picture at a time: a second picture would only share the same cores and double the memory."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def paint(
        self, picture: Pixels, brush: Brush, *, tiles: Sequence[Tile], scale: int, report: Share
    ) -> tuple[Pixels, float]:
        """Return the new picture, owned by the caller, and the seconds on the thread; when stopped, overwrite it."""
        async with self._turn:
            source = frame(picture)
            painted = blank(picture.width * scale, picture.height * scale, picture.channels)
            # Emptied at the end: whatever the thread still holds for an instant then holds no picture.
            frames = [source, frame(painted, writable=True)]
            del source
            busy_s = 0.0
            try:
                for done, tile in enumerate(tiles, 1):
                    busy_s += await self.call(partial(_stroke, brush, frames, tile))
                    await report(done / len(tiles))
            except BaseException as stopped:
                destroy(painted)
                # A kept exception must not keep the pictures mapped.
                traceback.clear_frames(stopped.__traceback__)
                raise
            finally:
                frames.clear()
            return painted, busy_s

    async def call(self, work: Callable[[], T]) -> T:
        """Run `work` on the thread; a cancelled caller gets its CancelledError once the thread has let go."""
        step = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            await _ended(step)
            raise

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


def _stroke(brush: Brush, frames: list[Frame], tile: Tile) -> float:
    began = perf_counter()
    source, target = frames
    brush(source, target, tile)
    return perf_counter() - began


async def _ended(step: asyncio.Future[T]) -> None:
    while not step.done():
        try:
            await asyncio.wait([step])
        except asyncio.CancelledError:
            continue
    if not step.cancelled():
        step.exception()

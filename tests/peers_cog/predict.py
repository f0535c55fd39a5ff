"""
Two models for a real Cog server: they make a picture larger; slowly, or not at all, when they are told so.

This runs in `.peers` only. Every prediction that starts, or is stopped, is a line in a file of the server's folder.
"""
# pyright: basic, reportMissingImports=false, reportUntypedFunctionDecorator=false

import time
from collections.abc import Iterator
from pathlib import Path

import cog
from PIL import Image

IMAGE = cog.Input(description="The picture.")
SCALE = cog.Input(description="How many times larger.", ge=1, le=4, default=2)
SLOW_S = cog.Input(description="How long to take.", default=0.0)
FAULT = cog.Input(description="What to fail with.", default="")


class Predictor(cog.BasePredictor):
    """One output, a file."""

    def predict(
        self, image: cog.Path = IMAGE, scale: int = SCALE, slow_s: float = SLOW_S, fault: str = FAULT
    ) -> cog.Path:
        """Make a picture larger."""
        return _work(image, scale, slow_s, fault)


class Streaming(cog.BasePredictor):
    """The same, as a list that is streamed."""

    @cog.streaming
    def predict(
        self, image: cog.Path = IMAGE, scale: int = SCALE, slow_s: float = SLOW_S, fault: str = FAULT
    ) -> Iterator[cog.Path]:
        """Make a picture larger."""
        yield _work(image, scale, slow_s, fault)


def _work(image: cog.Path, scale: int, slow_s: float, fault: str) -> cog.Path:
    _linger(slow_s)
    if fault:
        raise RuntimeError(fault)
    with Image.open(image) as picture:
        picture.convert("RGB").resize((picture.width * scale, picture.height * scale)).save("output.png")
    return cog.Path("output.png")


def _linger(slow_s: float) -> None:
    # In steps, since a prediction is stopped by an exception between two of them.
    _note("started")
    until = time.monotonic() + slow_s
    try:
        while time.monotonic() < until:
            time.sleep(0.01)
    except BaseException:
        _note("stopped")
        raise


def _note(event: str) -> None:
    with Path(event).open("a") as file:
        file.write(f"{event}\n")

"""What emulated models draw: the picture that they were given, larger, or one of their own."""

import base64
import binascii
import io
import re
from collections.abc import Mapping
from typing import Any, cast

from PIL import Image, UnidentifiedImageError

from tests.videos_corpus import marked_mp4

_DATA_URI = re.compile(r"data:image/[a-z]+;base64,(.+)", re.DOTALL)


class NotAPicture(Exception):
    """An input that no model can open."""


def picture_in(inputs: Mapping[str, Any], uploaded: Mapping[str, bytes]) -> Image.Image | None:
    """Open the first picture of an input, a data URI or the address of an upload; None where there is none."""
    for value in inputs.values():
        first = next(iter(cast("list[object]", value)), None) if isinstance(value, list) else value
        if isinstance(first, str) and first.startswith(("data:", "http")):
            return _opened(first, uploaded)
    return None


def draw(picture: Image.Image | None, inputs: Mapping[str, Any]) -> bytes:
    """Draw a PNG: the picture `scale` times as large, or a plain one."""
    scale = inputs.get("scale", 2)
    if picture is None:
        picture, scale = Image.new("RGB", (64, 64), (90, 140, 200)), 1
    drawn = io.BytesIO()
    size = (round(picture.width * scale), round(picture.height * scale))
    picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(drawn, "PNG")
    return drawn.getvalue()


def film() -> bytes:
    """Return an MP4, the same each time, which says much about its making."""
    return marked_mp4()


def _opened(value: str, uploaded: Mapping[str, bytes]) -> Image.Image:
    try:
        match = _DATA_URI.fullmatch(value)
        content = base64.b64decode(match[1], validate=True) if match else uploaded[value]
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except (KeyError, binascii.Error, UnidentifiedImageError, OSError):
        raise NotAPicture from None
    return picture

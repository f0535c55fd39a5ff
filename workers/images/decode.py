"""
Turns an untrusted file into sRGB rows. Runs in a sandboxed child only.

One strip of rows at a time is turned upright, converted and written out, so that beyond the decoder's own picture
nothing as large as the picture is held.
"""

import contextlib
import io
import mmap
import struct
import warnings
from collections.abc import Callable
from typing import IO, Final, cast

from PIL import Image, ImageCms

from broker.sniff import HEAD_BYTES, ImageKind, dimensions, sniff
from workers.images.errors import ImageFault, InvalidImage
from workers.images.orders import ImageLimits
from workers.images.polyglots import is_polyglot

PILLOW_NAMES: Final = {
    ImageKind.JPEG: "JPEG",
    ImageKind.PNG: "PNG",
    ImageKind.WEBP: "WEBP",
    ImageKind.HEIC: "HEIF",
}

_STRIP_ROWS: Final = 128
_SMALLEST_BYTES: Final = 12
_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_COLOUR_SPACES: Final = {"RGB": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK"}

Recolour = Callable[[Image.Image], Image.Image]


def decode(source: mmap.mmap, rows: mmap.mmap, limits: ImageLimits) -> tuple[int, int, int]:
    """Write the first frame, upright and in sRGB, as rows; return width, height and channels."""
    try:
        picture = _open(source, limits.max_pixels)
        return _write_rows(picture, rows)
    except InvalidImage:
        raise
    except (EOFError, struct.error):
        raise InvalidImage(ImageFault.TRUNCATED) from None
    except Exception as exc:  # noqa: BLE001 - codecs raise anything; their words may quote the file
        is_short = isinstance(exc, OSError) and "truncated" in str(exc)
        raise InvalidImage(ImageFault.TRUNCATED if is_short else ImageFault.DECODER_FAILED) from None


def _open(source: mmap.mmap, max_pixels: int) -> Image.Image:
    head = source[:HEAD_BYTES]
    kind = sniff(head)
    if kind is None or len(source) < _SMALLEST_BYTES or is_polyglot(source, kind):
        raise InvalidImage(ImageFault.NOT_AN_IMAGE)
    _refuse_above(dimensions(head) or (1, 1), max_pixels)
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.simplefilter("ignore")  # printing one would need a file
    picture = Image.open(cast("IO[bytes]", source), formats=[PILLOW_NAMES[kind]])
    _refuse_above(picture.size, max_pixels)
    picture.load()
    _refuse_above(picture.size, max_pixels)  # HEIC may say another size once it is decoded
    return picture


def _refuse_above(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise InvalidImage(ImageFault.TOO_MANY_PIXELS)


def _write_rows(picture: Image.Image, rows: mmap.mmap) -> tuple[int, int, int]:
    orientation = _orientation(picture)
    turn = _TURNS.get(orientation)
    height, width = picture.size if orientation >= 5 else picture.size[::-1]
    recolour, channels = _recolour(picture), 4 if picture.has_transparency_data else 3
    at = 0
    for top in range(0, height, _STRIP_ROWS):
        strip = picture.crop(_source_box(picture.size, orientation, top, min(top + _STRIP_ROWS, height)))
        upright = recolour(strip if turn is None else strip.transpose(turn))
        data = upright.tobytes()
        rows[at : at + len(data)] = data
        at += len(data)
    if at != width * height * channels:
        raise InvalidImage(ImageFault.DECODER_FAILED)
    return width, height, channels


def _orientation(picture: Image.Image) -> int:
    """Read how the camera was held; a broken EXIF block is no reason to refuse the picture."""
    with contextlib.suppress(Exception):
        value = int(picture.getexif().get(_ORIENTATION, 1))
        return value if value in _TURNS else 1
    return 1


def _source_box(size: tuple[int, int], orientation: int, top: int, bottom: int) -> tuple[int, int, int, int]:
    """Find what becomes the rows from top to bottom once the picture is upright."""
    width, height = size
    match orientation:
        case 3 | 4:
            return 0, height - bottom, width, height - top
        case 5 | 6:
            return top, 0, bottom, height
        case 7 | 8:
            return width - bottom, 0, width - top, height
        case _:
            return 0, top, width, bottom


def _recolour(picture: Image.Image) -> Recolour:
    """Choose how strips of this picture become RGB, or RGBA where something shows through."""
    base = _base_mode(picture.mode)
    transform = _transform(picture.info.get("icc_profile"), base)
    has_alpha = picture.has_transparency_data

    def recolour(strip: Image.Image) -> Image.Image:
        if picture.mode.startswith("I"):
            strip = _eight_bits(strip)
        alpha = strip.convert("RGBA").getchannel("A") if has_alpha else None
        plain = strip if strip.mode == base else strip.convert(base)
        if transform is not None:
            plain = ImageCms.applyTransform(plain, transform) or plain
        plain = plain if plain.mode == "RGB" else plain.convert("RGB")
        if alpha is not None:
            plain.putalpha(alpha)
        return plain

    return recolour


def _base_mode(mode: str) -> str:
    """Name the mode without alpha or palette, in which a profile is applied."""
    if mode in ("1", "L", "LA", "La") or mode.startswith("I"):
        return "L"
    return "CMYK" if mode == "CMYK" else "RGB"


def _eight_bits(strip: Image.Image) -> Image.Image:
    """Scale 16-bit grey down; a plain conversion would clip it to white."""
    return strip.convert("I").point(lambda value: value * (1 / 257)).convert("L")


def _transform(profile: object, base: str) -> ImageCms.ImageCmsTransform | None:
    """Build the way from the embedded profile to sRGB; a broken or foreign profile counts as none."""
    if not isinstance(profile, bytes) or profile[16:20] != _COLOUR_SPACES[base]:
        return None
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - Pillow leaves its result untyped
            base,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    return None

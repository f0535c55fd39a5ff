"""Makes a file from rows and nothing else, then reads it back segment by segment. Runs in a sandboxed child only."""

import io
import mmap
from typing import IO, Any, Final, cast

from PIL import Image

from broker.sniff import ImageKind
from workers.images.errors import EncodingFailed, ImageFault
from workers.images.formats import UncleanOutput, check
from workers.images.orders import EncodeOrder

_MODES: Final = {3: "RGB", 4: "RGBA"}

# On a 12-megapixel photo a fifth (PNG) and half (WebP) of the time of the usual settings, for files of the same size.
_PNG_EFFORT: Final = 3
_WEBP_EFFORT: Final = 2


class _Sheet(io.RawIOBase):
    """A file that is a piece of memory: it cannot grow, and has no descriptor that a codec could write past it with."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self.size_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:  # the buffer protocol has no name before Python 3.12
        end = self.size_bytes + len(data)
        self._memory[self.size_bytes : end] = data
        self.size_bytes = end
        return len(data)


def encode(rows: mmap.mmap, sheet: mmap.mmap, order: EncodeOrder) -> int:
    """Write the file and return its size in bytes; raise EncodingFailed where it is not made or not clean."""
    out = _Sheet(sheet)
    try:
        mode = _MODES[order.channels]
        pixels = cast("bytearray", rows)  # Pillow takes any buffer; its types name three
        picture = Image.frombuffer(mode, (order.width, order.height), pixels, "raw", mode, 0, 1)
        if order.longest_side:
            picture.thumbnail((order.longest_side, order.longest_side), Image.Resampling.BOX)
        _save(picture, cast("IO[bytes]", out), order)
        check(sheet[: out.size_bytes], order.kind)
    except UncleanOutput:
        raise EncodingFailed(ImageFault.NOT_CLEAN) from None
    except Exception:  # noqa: BLE001 - codecs raise anything
        raise EncodingFailed(ImageFault.ENCODER_FAILED) from None
    return out.size_bytes


def _save(picture: Image.Image, out: IO[bytes], order: EncodeOrder) -> None:
    match order.kind:
        case ImageKind.JPEG:
            _opaque(picture).save(out, "JPEG", quality=order.quality, subsampling="4:4:4")
        case ImageKind.PNG:
            picture.save(out, "PNG", compress_level=_PNG_EFFORT)
        case ImageKind.WEBP:
            picture.save(out, "WEBP", quality=order.quality, method=_WEBP_EFFORT)
        case ImageKind.HEIC:
            raise EncodingFailed(ImageFault.ENCODER_FAILED)


def _opaque(picture: Image.Image) -> Image.Image:
    """Lay a picture that shows something through on white: JPEG knows no alpha."""
    if picture.mode == "RGB":
        return picture
    paper = Image.new("RGB", picture.size, "white")
    paper.paste(picture, mask=picture.getchannel("A"))
    return paper

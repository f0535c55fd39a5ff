"""What the worker and its zygote say to each other, and how much a picture may take."""

import msgspec

from broker.sniff import ImageKind
from workers.images.errors import ImageFault


class ImageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one picture may take."""

    max_pixels: int = 50_000_000
    timeout_s: float = 20.0


class DecodeOrder(msgspec.Struct, frozen=True, kw_only=True, tag="decode"):
    """Turn the file behind the first descriptor into rows behind the second."""

    number: int
    size_bytes: int
    capacity_bytes: int
    limits: ImageLimits


class EncodeOrder(msgspec.Struct, frozen=True, kw_only=True, tag="encode"):
    """Turn the rows behind the first descriptor into a file behind the second."""

    number: int
    width: int
    height: int
    channels: int
    kind: ImageKind
    quality: int  # of JPEG and WebP; PNG loses nothing
    longest_side: int = 0  # what is larger is made smaller; 0: as large as it is
    capacity_bytes: int
    limits: ImageLimits


class CleanOrder(msgspec.Struct, frozen=True, kw_only=True, tag="clean"):
    """Turn the video behind the first descriptor into one without metadata behind the second, of the same size."""

    number: int
    size_bytes: int
    limits: ImageLimits


class StopOrder(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Kill the child that works on this number; its verdict comes once it is gone."""

    number: int


Work = DecodeOrder | EncodeOrder | CleanOrder
Order = Work | StopOrder


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How an order ended; sent after the child was reaped. Its figures come from a child and are not to be trusted."""

    number: int = 0  # 0: the zygote itself is ready
    fault: ImageFault | None = None
    width: int = 0
    height: int = 0
    channels: int = 0
    size_bytes: int = 0
    obstacle: str = ""  # why the sandbox cannot be had at all

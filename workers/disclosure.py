"""
Makes the file that a third party gets: rebuilt from pixels, as small as it has to be, and nothing else of the upload.

A picture is never made smaller in pixels on the way: who asked for ten megapixels is told that a provider takes fewer.
"""

from typing import Final

from broker.sniff import ImageKind
from providers.base import File, Pixels, Upload
from providers.failures import FailureKind, ProviderFailure
from workers.images.zygote import Zygote
from workers.plaintext import let_go

QUALITIES: Final = (95, 90, 80, 70)
"""Tried one after the other until a file is small enough; below the last one a provider would work on artefacts."""

_RGBA: Final = 4
_LOSSLESS: Final = 100


async def clean_file(
    zygote: Zygote, pixels: Pixels, *, media_types: frozenset[str], max_bytes: int, max_pixels: int | None
) -> File:
    """
    Encode a picture in a form that a provider takes; the caller destroys the file, and the pixels.

    Raises UNSUPPORTED where the picture is too large for the provider, in pixels or in every form as a file.
    """
    if max_pixels is not None and pixels.width * pixels.height > max_pixels:
        raise ProviderFailure(FailureKind.UNSUPPORTED, "too_many_pixels", is_unsent=True)
    forms = _forms(pixels, media_types)
    if not forms:
        raise ProviderFailure(FailureKind.UNSUPPORTED, "media_type", is_unsent=True)
    for kind, quality in forms:
        upload = await zygote.encode(pixels, kind=kind, quality=quality)
        if upload.size_bytes <= max_bytes:
            return _file(upload, kind, pixels)
        let_go(upload.fd)
    raise ProviderFailure(FailureKind.UNSUPPORTED, "picture_too_large", is_unsent=True)


def _forms(pixels: Pixels, media_types: frozenset[str]) -> list[tuple[ImageKind, int]]:
    """Order what may be tried: what keeps transparency first, then JPEG, and the rest only where JPEG is not taken."""
    allowed = [kind for kind in (ImageKind.PNG, ImageKind.JPEG, ImageKind.WEBP) if kind.media_type in media_types]
    forms: list[tuple[ImageKind, int]] = []
    if ImageKind.PNG in allowed and (pixels.channels == _RGBA or ImageKind.JPEG not in allowed):
        forms.append((ImageKind.PNG, _LOSSLESS))
    lossy = ImageKind.JPEG if ImageKind.JPEG in allowed else ImageKind.WEBP
    if lossy in allowed:
        forms += [(lossy, quality) for quality in QUALITIES]
    return forms


def _file(upload: Upload, kind: ImageKind, pixels: Pixels) -> File:
    return File(
        fd=upload.fd,
        size_bytes=upload.size_bytes,
        media_type=kind.media_type,
        width=pixels.width,
        height=pixels.height,
    )

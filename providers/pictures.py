"""How a clean picture leaves: as bytes, base64 or a data URI, under a name that says nothing."""

import base64
import os

from providers.base import File, Task
from providers.failures import FailureKind, ProviderFailure

_SUFFIXES = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}


def files_of(task: Task) -> tuple[File, ...]:
    """Return the pictures of a task; raise INVALID_INPUT where one is not a clean file."""
    files = tuple(picture for picture in task.pictures if isinstance(picture, File))
    if len(files) != len(task.pictures):
        raise ProviderFailure(FailureKind.INVALID_INPUT, "not_a_file", is_unsent=True)
    return files


def file_name(picture: File, n: int = 1) -> str:
    """Name a file by nothing but its kind and its place: image.jpg, image2.png."""
    return f"image{n if n > 1 else ''}.{_SUFFIXES.get(picture.media_type, 'bin')}"


def read(picture: File) -> bytes:
    """Read a picture; the bytes are overwritten when they are freed, as all memory of our processes is."""
    data = os.pread(picture.fd, picture.size_bytes, 0)
    if len(data) != picture.size_bytes:
        raise ProviderFailure(FailureKind.INVALID_INPUT, "file_short")
    return data


def in_base64(picture: File) -> str:
    """Write a picture as base64."""
    return base64.b64encode(read(picture)).decode()


def data_uri(picture: File) -> str:
    """Write a picture as a data URI (RFC 2397)."""
    return f"data:{picture.media_type};base64,{in_base64(picture)}"

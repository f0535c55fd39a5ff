"""
Takes out of a video what is neither picture nor sound. Runs in a sandboxed child only.

Only the container is read: nothing is decoded, nothing moves, so that every offset inside stays right. The result is
read again, and has to need no further edit.
"""

import mmap
from typing import Final

from providers.kinds import HEAD_BYTES, MP4, WEBM, media_type_of
from workers.images.errors import EncodingFailed, ImageFault
from workers.images.mp4 import Mp4
from workers.images.webm import WebM

_CONTAINERS: Final = {MP4: Mp4, WEBM: WebM}


def clean(source: mmap.mmap, made: mmap.mmap) -> tuple[int, int]:
    """Write the clean video; return width and height, or raise EncodingFailed where it cannot be made clean."""
    container = _CONTAINERS.get(media_type_of(source[:HEAD_BYTES]) or "")
    if container is None:
        raise EncodingFailed(ImageFault.NOT_A_VIDEO)
    with memoryview(source) as given, memoryview(made) as copy:
        copy[:] = given
    for edit in container(made).edits():
        edit.make(made)
    read_again = container(made)
    if not all(edit.is_made(made) for edit in read_again.edits()):
        raise EncodingFailed(ImageFault.NOT_CLEAN)
    return read_again.size

"""How a clean picture leaves: as itself, under a name that says nothing."""

import base64
import os

import pytest

from providers.base import File, Pixels, Task
from providers.failures import FailureKind, ProviderFailure
from providers.pictures import data_uri, file_name, files_of, in_base64, read

BYTES = bytes(range(256)) * 5


def memory(data: bytes = BYTES) -> int:
    fd = os.memfd_create("IMG_0001-canary.HEIC")
    os.write(fd, data)
    return fd


def file(*, media_type: str = "image/jpeg", size_bytes: int = len(BYTES)) -> File:
    return File(fd=memory(), size_bytes=size_bytes, media_type=media_type, width=4, height=4)


def task(*pictures: File | Pixels) -> Task:
    return Task(attempt="a", operation="edit", parameters={}, pictures=pictures, deadline_s=60)


@pytest.mark.parametrize(
    ("media_type", "n", "name"),
    [
        ("image/jpeg", 1, "image.jpg"),
        ("image/png", 1, "image.png"),
        ("image/webp", 2, "image2.webp"),
        ("image/jpeg", 16, "image16.jpg"),
        ("application/x-canary", 1, "image.bin"),
    ],
)
def test_names_tell_nothing(media_type: str, n: int, name: str) -> None:
    """A file's name is its kind and its place among the pictures, whatever it was called before."""
    assert file_name(file(media_type=media_type), n) == name


def test_a_picture_is_read_whole_and_again() -> None:
    """Reading moves nothing, so that a second attempt reads the same."""
    picture = file()
    assert read(picture) == BYTES
    assert read(picture) == BYTES
    assert base64.b64decode(in_base64(picture)) == BYTES
    assert data_uri(picture) == f"data:image/jpeg;base64,{in_base64(picture)}"
    assert read(file(size_bytes=100)) == BYTES[:100]


def test_a_picture_that_is_shorter_than_it_says_does_not_leave() -> None:
    """Half a picture is never sent."""
    with pytest.raises(ProviderFailure) as caught:
        read(file(size_bytes=len(BYTES) + 1))
    assert (caught.value.kind, caught.value.detail) == (FailureKind.INVALID_INPUT, "file_short")


def test_only_clean_files_leave() -> None:
    """Pixels, or what the user sent, are for our own models: an adapter refuses them before a byte is sent."""
    first, second = file(), file(media_type="image/png")
    assert files_of(task(first, second)) == (first, second)
    assert files_of(task()) == ()
    with pytest.raises(ProviderFailure) as caught:
        files_of(task(first, Pixels(fd=memory(), width=1, height=1, channels=3)))
    assert (caught.value.kind, caught.value.is_unsent) == (FailureKind.INVALID_INPUT, True)

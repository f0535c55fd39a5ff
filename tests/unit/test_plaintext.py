"""Shared memory that held plaintext is overwritten before the kernel gets it back, however it is let go."""

import os

import pytest

from workers.plaintext import Plaintext, mapped, overwrite

SECRET = b"pixels of somebody" * 1_000


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What stood in each piece of memory at the moment when it was given back."""
    seen: list[bytes] = []
    truncate = os.ftruncate

    def truncated(descriptor: int, size_bytes: int) -> None:
        if size_bytes == 0:
            seen.append(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
        truncate(descriptor, size_bytes)

    monkeypatch.setattr(os, "ftruncate", truncated)
    return seen


def filled() -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, SECRET)
    return descriptor


def is_closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


def test_memory_is_overwritten_before_it_is_given_back(given_back: list[bytes]) -> None:
    """Every byte is zero by then, and the descriptor is closed."""
    descriptor = filled()
    overwrite(descriptor)
    assert given_back == [bytes(len(SECRET))]
    assert is_closed(descriptor)


def test_leaving_the_block_overwrites_what_is_left(given_back: list[bytes]) -> None:
    """Also when it is left by an exception; what was destroyed before is not touched again."""
    held: list[int] = []
    with pytest.raises(KeyError):
        break_off(held)
    assert given_back == [bytes(len(SECRET))] * 2
    assert all(is_closed(descriptor) for descriptor in held)


def break_off(held: list[int]) -> None:
    with Plaintext() as plaintext:
        held += [plaintext.keep(filled()), plaintext.blank(len(SECRET))]
        with mapped(held[1], writable=True) as view:
            view[:] = SECRET
        plaintext.destroy(held[0])
        plaintext.destroy(held[0])
        raise KeyError

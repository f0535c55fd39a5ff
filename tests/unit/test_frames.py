import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.frames import (
    FRAME_BYTES,
    KEY_BYTES,
    KEY_ID_BYTES,
    Answer,
    FrameInvalid,
    Hardening,
    KeyholderStats,
    Memory,
    Verb,
    body,
    read_head,
    read_stats,
    write_head,
    write_stats,
)


def blank_frame() -> memoryview:
    return memoryview(bytearray(FRAME_BYTES))


@given(
    code=st.sampled_from([*Verb, *Answer]),
    number=st.integers(0, 2**64 - 1),
    key_id=st.binary(min_size=KEY_ID_BYTES, max_size=KEY_ID_BYTES),
)
def test_what_is_written_is_read(code: Verb | Answer, number: int, key_id: bytes) -> None:
    """Head and body have places of their own: neither changes the other."""
    frame = blank_frame()
    body(frame)[:] = b"k" * KEY_BYTES
    write_head(frame, code, number=number, key_id=key_id)
    assert read_head(frame) == (code, number, key_id)
    assert body(frame) == b"k" * KEY_BYTES


def test_the_body_is_a_place_not_a_copy() -> None:
    """A key that is read from a frame can be overwritten in the frame."""
    frame = blank_frame()
    body(frame)[:] = b"k" * KEY_BYTES
    body(frame)[:] = bytes(KEY_BYTES)
    assert not any(frame)


@pytest.mark.parametrize("start", [b"", b"GET /", b"LK\x02", b"KL\x01"])
def test_what_is_no_frame_is_refused(start: bytes) -> None:
    """Other protocols and other versions are told apart from frames."""
    frame = memoryview(bytearray(start.ljust(FRAME_BYTES, b"\0")))
    with pytest.raises(FrameInvalid):
        read_head(frame)


def test_requests_and_answers_share_no_code() -> None:
    """A client that is connected to a client, or an echo, cannot be taken for a keyholder."""
    assert not set(map(int, Verb)) & set(map(int, Answer))


@given(
    stats=st.builds(
        KeyholderStats,
        held=st.integers(0, 2**32 - 1),
        capacity=st.integers(0, 2**32 - 1),
        tombstones=st.integers(0, 2**32 - 1),
        max_ttl_s=st.integers(0, 2**64 - 1),
        memory=st.sampled_from(Memory),
        hardening=st.integers(0, 15).map(Hardening),
    )
)
def test_stats_fit_a_body(stats: KeyholderStats) -> None:
    """The figures of a keyholder come through as they are."""
    place = body(blank_frame())
    write_stats(place, stats)
    assert read_stats(place) == stats


def test_unknown_memory_is_refused() -> None:
    """A kind of memory without a name is not guessed at."""
    with pytest.raises(FrameInvalid):
        read_stats(memoryview(b"\xff" * KEY_BYTES))

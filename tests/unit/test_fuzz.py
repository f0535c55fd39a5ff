"""Every reader of untrusted bytes, on whole examples and on spoilt ones; `make fuzz` goes on from here, and deeper."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

DEEP = 2_000
BRACKETS = (b"[", b'{"a":', b"(", b"\x00\x00\x00\x08moov")


@st.composite
def spoilt(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A whole example with a few things done to it that a client or a provider might do."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("cut", "drop", "put", "flip", "repeat", "nest"))):
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + draw(st.integers(1, 64))]
            case "put":
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
            case "flip" if at < len(data):
                data[at] ^= draw(st.integers(1, 255))
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 512))]
            case _:
                data[at:at] = draw(st.sampled_from(BRACKETS)) * DEEP
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_read_or_refused(name: str) -> None:
    """Ends in an answer or in an error of its own, for whole, cut, changed and deeply nested bytes, and for noise."""
    target = TARGETS[name]

    @settings(max_examples=60, derandomize=True, deadline=None, database=None)
    @given(st.one_of(spoilt(tuple(target.seeds)), st.binary(max_size=200)))
    def run(data: bytes) -> None:
        target.run(data)

    for seed in target.seeds:
        target.run(seed)
    run()

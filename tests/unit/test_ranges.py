"""Single byte ranges of RFC 9110."""

import pytest

from broker.api.ranges import RangeNotSatisfiable, asked_range


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes=0-9", 0, 10), ("bytes=5-", 5, 100), ("bytes=-1", 99, 100), ("bytes=-500", 0, 100), ("bytes=99-", 99, 100)],
)
def test_a_range_is_read(header: str, start: int, stop: int) -> None:
    """Ends are included in the header and cut to what is there."""
    span = asked_range(header, 100)
    assert span is not None
    assert (span.start, span.stop) == (start, stop)
    assert span.content_range == f"bytes {start}-{stop - 1}/100"


@pytest.mark.parametrize("header", ["", "bytes=-", "bytes=9-5", "bytes=0-1,4-5", "items=0-1", "bytes=a-b", "bytes=١-٢"])
def test_another_kind_is_passed_over(header: str) -> None:
    """What cannot be read, or is more than one range, gets the whole."""
    assert asked_range(header, 100) is None


@pytest.mark.parametrize(("header", "size"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=0-", 0)])
def test_beyond_the_end_is_refused(header: str, size: int) -> None:
    """A range without a byte in it cannot be served."""
    with pytest.raises(RangeNotSatisfiable):
        asked_range(header, size)

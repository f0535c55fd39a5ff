"""Which bytes of an output a request asks for (RFC 9110, single ranges)."""

import re

import msgspec

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class RangeNotSatisfiable(Exception):
    """The range lies beyond the end."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes `start` to `stop` (not included) of `size_bytes`."""

    start: int
    stop: int
    size_bytes: int

    @property
    def length(self) -> int:
        """How many bytes these are."""
        return self.stop - self.start

    @property
    def content_range(self) -> str:
        """The value of Content-Range."""
        return f"bytes {self.start}-{self.stop - 1}/{self.size_bytes}"


def asked_range(header: str, size_bytes: int) -> Span | None:
    """Return the range; None where the header is absent, or of a kind that a server may ignore, such as several."""
    found = _RANGE.fullmatch(header.strip().replace(" ", ""))
    if found is None or found[1] == found[2] == "":
        return None
    first, last = found[1], found[2]
    if first == "":
        start, stop = max(0, size_bytes - int(last)), size_bytes
    else:
        start, stop = int(first), min(int(last) + 1 if last else size_bytes, size_bytes)
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise RangeNotSatisfiable
    return Span(start=start, stop=stop, size_bytes=size_bytes)

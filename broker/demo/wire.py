"""What a provider was sent, taken apart to the last byte: base64 is decoded, and every picture is found and read."""

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from broker.demo.metadata import Detail, details
from broker.sniff import ImageKind, dimensions, sniff

_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{16,}={0,2}|[A-Za-z0-9_-]{16,}={0,2}")
_PLAIN: Final = bytes.maketrans(b"-_", b"+/")
_BEGINNINGS: Final = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP", re.DOTALL)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as whoever got it wrote it down."""

    route: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> bytes:
        """All of it as one string of bytes."""
        words = [self.method, self.path, *(f"{k}={v}" for k, v in self.query.items())]
        lines = [" ".join(words), *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\n".join(lines).encode() + b"\n\n" + self.body


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """One picture in a request; `told` is what it says beside its pixels."""

    content: bytes
    size: tuple[int, int] | None
    told: tuple[Detail, ...]


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """All requests to one provider."""

    requests: tuple[Request, ...]

    @property
    def pictures(self) -> list[Picture]:
        """The first picture of each request, and of whatever base64 in one stands for."""
        layers = [layer for said in self._said for layer in (said, *_decoded(said))]
        return [picture for layer in layers if (picture := _picture(layer))]

    def found(self, needles: Sequence[bytes]) -> set[bytes]:
        """Which of these bytes occur anywhere, as they are or inside base64."""
        # What stands in front of base64 may look like a part of it: it is tried from four places on.
        layers = [*self._said, *(text for shift in range(4) for said in self._said for text in _decoded(said, shift))]
        return {needle for needle in needles if any(needle in layer for layer in layers)}

    @property
    def _said(self) -> list[bytes]:
        return [request.said for request in self.requests]

    def with_word(self, word: str) -> list[Request]:
        """The requests in which a word occurs."""
        return [request for request in self.requests if word.encode() in request.said]


def _decoded(said: bytes, shift: int = 0) -> Iterator[bytes]:
    for run in _BASE64.findall(said):
        plain = run.rstrip(b"=").translate(_PLAIN)[shift:]
        yield base64.b64decode(plain[: len(plain) - (len(plain) % 4 == 1)] + b"==")


def _picture(layer: bytes) -> Picture | None:
    match = _BEGINNINGS.search(layer)
    if match is None:
        return None
    content = layer[match.start() :]
    is_jpeg = sniff(content) is ImageKind.JPEG
    return Picture(content=content, size=dimensions(content), told=tuple(details(content)) if is_jpeg else ())

"""The ways in which the same bytes can be written down: to look for them, and to plant them."""

import base64
import json
import secrets
import zlib
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec


class Encoding(StrEnum):
    """One way to write bytes down."""

    RAW = "raw"
    BASE64_0 = "base64"
    BASE64_1 = "base64, one byte before it"
    BASE64_2 = "base64, two bytes before it"
    BASE64URL_0 = "base64url"
    BASE64URL_1 = "base64url, one byte before it"
    BASE64URL_2 = "base64url, two bytes before it"
    HEX = "hex"
    HEX_UPPER = "hex in capitals"
    UTF16 = "UTF-16"
    JSON = "JSON-escaped"
    INFLATED = "inflated"


class Pattern(msgspec.Struct, frozen=True):
    """The bytes as which a needle stands in one encoding."""

    data: bytes
    encoding: Encoding


_BEFORE: Final = {
    Encoding.BASE64_0: 0,
    Encoding.BASE64_1: 1,
    Encoding.BASE64_2: 2,
    Encoding.BASE64URL_0: 0,
    Encoding.BASE64URL_1: 1,
    Encoding.BASE64URL_2: 2,
}
_URL: Final = bytes.maketrans(b"+/", b"-_")


def patterns(needle: bytes) -> list[Pattern]:
    """Return what to look for; a pattern that would be the same as an earlier one is left out."""
    found: dict[bytes, Encoding] = {}
    for encoding, write in _WRITERS.items():
        found.setdefault(write(needle), encoding)
    escaped = _json(needle, upper=True)
    found.setdefault(escaped, Encoding.JSON)
    return [Pattern(data, encoding) for data, encoding in found.items()]


def planted(needle: bytes, encoding: Encoding) -> bytes:
    """Write a needle down in one encoding as a leak would have it: with something before and after it."""
    around = secrets.token_bytes(3)
    if encoding in _BEFORE:
        text = base64.b64encode(around[: _BEFORE[encoding]] + needle + around)
        return text.translate(_URL) if "url" in encoding else text
    if encoding is Encoding.INFLATED:
        return zlib.compress(bytes(64) + needle + bytes(64))
    return _WRITERS[encoding](needle)


def tells_apart(needle: bytes) -> bool:
    """Whether every encoding of the needle looks different, so that finding one says nothing of another."""
    return len({write(needle) for write in _WRITERS.values()}) == len(_WRITERS)


def _base64(before: int, *, url: bool) -> Callable[[bytes], bytes]:
    def write(needle: bytes) -> bytes:
        # Letters at both ends depend on what stands beside the needle: they are left out.
        text = base64.b64encode(bytes(before) + needle)
        whole = text[-(-8 * before // 6) : 8 * (before + len(needle)) // 6]
        return whole.translate(_URL) if url else whole

    return write


def _json(needle: bytes, *, upper: bool = False) -> bytes:
    text = json.dumps(_text(needle))[1:-1]
    return (_capitals(text) if upper else text).encode()


def _capitals(escaped: str) -> str:
    head, *rest = escaped.split("\\u")
    return head + "".join(f"\\u{part[:4].upper()}{part[4:]}" for part in rest)


def _text(needle: bytes) -> str:
    try:
        return needle.decode()
    except UnicodeDecodeError:
        return needle.decode("latin-1")


_WRITERS: Final[dict[Encoding, Callable[[bytes], bytes]]] = {
    Encoding.RAW: bytes,
    **{encoding: _base64(before, url="url" in encoding) for encoding, before in _BEFORE.items()},
    Encoding.HEX: lambda needle: needle.hex().encode(),
    Encoding.HEX_UPPER: lambda needle: needle.hex().upper().encode(),
    Encoding.UTF16: lambda needle: _text(needle).encode("utf-16-le"),
    Encoding.JSON: _json,
}

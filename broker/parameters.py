"""The kinds of parameters that operations take, and how what a request says of them is read."""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from broker.errors import BrokerError, InvalidHeader, InvalidParameter, ParameterInUrl
from broker.form_errors import InvalidJson

Value = str | int
Pairs = Iterable[tuple[str, str]]

MAX_HEADER_CHARS = 16_384
MAX_TEXT_CHARS = 4_000
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_SURROGATE = re.compile("[\ud800-\udfff]")  # valid in JSON, and cannot be encoded again
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of a few words or numbers."""

    description: str
    values: tuple[Value, ...]
    default: Value

    def read(self, given: object) -> Value | None:
        """Return the value that is meant, or None."""
        return next((value for value in self.values if type(given) is type(value) and given == value), None)

    def read_text(self, given: str) -> Value | None:
        """Return the value that is meant in a URL, or None."""
        return next((value for value in self.values if given == str(value)), None)

    def schema(self) -> dict[str, Any]:
        """Describe it as JSON Schema."""
        kind = "integer" if isinstance(self.default, int) else "string"
        return {"type": kind, "enum": list(self.values), "default": self.default, "description": self.description}


class Integer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole number within bounds."""

    description: str
    minimum: int
    maximum: int
    default: int

    def read(self, given: object) -> Value | None:
        """Return the value that is meant, or None."""
        return given if type(given) is int and self.minimum <= given <= self.maximum else None

    def read_text(self, given: str) -> Value | None:
        """Return the value that is meant in a URL, or None."""
        return self.read(int(given)) if _INTEGER.fullmatch(given) else None

    def schema(self) -> dict[str, Any]:
        """Describe it as JSON Schema."""
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        return {"type": "integer", **bounds, "default": self.default, "description": self.description}


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """What a user types: never in a URL, never in a row; a text without a default is required."""

    description: str
    default: str | None = None

    def read(self, given: object) -> Value | None:
        """Return the value that is meant, or None."""
        if not isinstance(given, str) or not 0 < len(given) <= MAX_TEXT_CHARS or _SURROGATE.search(given):
            return None
        return given

    def schema(self) -> dict[str, Any]:
        """Describe it as JSON Schema."""
        return {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS, "description": self.description}


Parameter = Choice | Integer | Text
Declared = Mapping[str, Parameter]
"""The parameters that an operation takes, by name."""


def read_pairs(declared: Declared, pairs: Pairs) -> dict[str, Value]:
    """Read parameters from the pairs of a query, in which no free text may stand."""
    given: dict[str, Value] = {}
    for key, text in pairs:
        if key in given:
            raise invalid(key, "is given twice")
        parameter = _parameter(declared, key)
        if isinstance(parameter, Text):
            raise ParameterInUrl(pointer=f"#/parameters/{key}")
        given[key] = _accepted(key, parameter.read_text(text))
    return given


def read_mapping(declared: Declared, mapping: Mapping[str, object]) -> dict[str, Value]:
    """Read parameters from decoded JSON."""
    return {key: _accepted(key, _parameter(declared, key).read(value)) for key, value in mapping.items()}


def complete(declared: Declared, given: dict[str, Value]) -> dict[str, Value]:
    """Fill in defaults; a parameter that has none is required, and an empty default is left out."""
    for key, parameter in declared.items():
        if key in given:
            continue
        if parameter.default is None:
            raise invalid(key, "is missing")
        if parameter.default != "":
            given[key] = parameter.default
    return given


def decode_header(value: str) -> dict[str, object]:
    """Decode base64url(JSON object), padded or not; raise InvalidHeader, which never quotes it."""
    if len(value) > MAX_HEADER_CHARS:
        raise InvalidHeader("Lethe-Parameters is too long", pointer="#/headers/Lethe-Parameters")
    detail = "Lethe-Parameters is not base64url of one JSON object without repeated names"
    refusal = InvalidHeader(detail, pointer="#/headers/Lethe-Parameters")
    try:
        text = _unarmored(value)
    except ValueError:  # holds what it could not decode, so that it is no cause of what is raised
        text = ""
    return _decode_object(text, refusal)


def decode_json(data: bytes | bytearray) -> dict[str, object]:
    """Decode one JSON object; raise InvalidJson, which never quotes it."""
    return _decode_object(data, InvalidJson())


def invalid(key: str, reason: str, *, at: str = "#/parameters") -> InvalidParameter:
    """Return the error that names a parameter, never its value."""
    # A name that nobody declared may be something a user typed; only what looks like a name is repeated.
    if not _PLAIN_NAME.fullmatch(key):
        return InvalidParameter(f"a parameter {reason}", pointer=at)
    return InvalidParameter(f"{key} {reason}", pointer=f"{at}/{key}")


class _Unrepeated(dict[str, object]):
    """A JSON object in which no name is repeated."""


def _decode_object(data: str | bytes | bytearray, refusal: BrokerError) -> dict[str, object]:
    try:
        decoded: object = json.loads(data, object_pairs_hook=_refuse_repeats)
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, _Unrepeated):
        raise refusal
    return dict(decoded)


def _refuse_repeats(pairs: list[tuple[str, object]]) -> _Unrepeated:
    decoded = _Unrepeated(pairs)
    if len(decoded) != len(pairs):
        raise ValueError("repeated name")
    return decoded


def _unarmored(value: str) -> str:
    # Python's decoder passes over characters that are not base64, so they are refused first.
    if not re.fullmatch(r"[A-Za-z0-9_-]*={0,2}", value):
        raise ValueError("not base64url")
    bare = value.rstrip("=")
    return urlsafe_b64decode(bare + "=" * (-len(bare) % 4)).decode()


def _parameter(declared: Declared, key: str) -> Parameter:
    if key not in declared:
        raise invalid(key, "is not a parameter of this operation")
    return declared[key]


def _accepted(key: str, value: Value | None) -> Value:
    if value is None:
        raise invalid(key, "is out of range")
    return value

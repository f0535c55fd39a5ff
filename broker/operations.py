"""The vocabulary of operations: their names, the parameters that each one takes, and how a request's are read."""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from broker.errors import InvalidHeader, InvalidParameter, ParameterInUrl, UnknownOperation

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


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """Something that Lethe can have done to a picture."""

    name: str
    description: str
    parameters: dict[str, Parameter] = {}

    @property
    def texts(self) -> frozenset[str]:
        """The parameters that hold what a user typed."""
        return frozenset(name for name, parameter in self.parameters.items() if isinstance(parameter, Text))

    def schema(self) -> dict[str, Any]:
        """Describe the parameters as one JSON Schema object, for GET /v1/operations."""
        required = [name for name, parameter in self.parameters.items() if parameter.default is None]
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: parameter.schema() for name, parameter in self.parameters.items()},
            "additionalProperties": False,
        }
        return {**schema, "required": required} if required else schema


_PROMPT = Text(description="What the result should show; sent in the Lethe-Parameters header.")
_WISHES = Text(description="Wishes for the result; sent in the Lethe-Parameters header.", default="")

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation(
            name="upscale",
            description="Make a picture larger and sharper.",
            parameters={
                "scale": Choice(description="How many times wider and higher.", values=(2, 3, 4), default=2),
                "quality": Choice(description="fast, or best for photos.", values=("fast", "best"), default="fast"),
            },
        ),
        Operation(
            name="restyle",
            description="Redraw a picture in a style.",
            parameters={
                "filter": Choice(description="The style.", values=("pencil",), default="pencil"),
                "strength": Integer(description="How strong, in percent.", minimum=1, maximum=100, default=50),
            },
        ),
        Operation(name="edit", description="Change a picture as told.", parameters={"prompt": _PROMPT}),
        Operation(name="generate", description="Make a picture from words.", parameters={"prompt": _PROMPT}),
        Operation(name="animate", description="Make a picture move.", parameters={"prompt": _WISHES}),
        Operation(name="photoshoot", description="Portraits from several photos.", parameters={"prompt": _WISHES}),
        Operation(name="remove_background", description="Cut out what a picture shows."),
        Operation(name="noop", description="Do nothing; for measurements and tests."),
    )
}


def find_operation(name: str) -> Operation:
    """Return the operation of this name, or raise UnknownOperation."""
    operation = OPERATIONS.get(name)
    if operation is None:
        raise UnknownOperation(pointer="#/operation")
    return operation


def parse_request(name: str, pairs: Pairs, header: str = "") -> dict[str, Value]:
    """Read the parameters of a PUT: its query pairs and its Lethe-Parameters header, defaults filled in."""
    operation = find_operation(name)
    given = _from_query(operation, pairs)
    for key, value in _from_mapping(operation, decode_header(header) if header else {}).items():
        if key in given:
            raise _invalid(key, "stands in the URL and in the header")
        given[key] = value
    return _complete(operation, given)


def parse_query(name: str, pairs: Pairs) -> dict[str, Value]:
    """Read parameters from the pairs of a query; a pair that repeats the operation's own name is passed over once."""
    operation = find_operation(name)
    return _complete(operation, _from_query(operation, pairs))


def parse_parameters(name: str, mapping: Mapping[str, object]) -> dict[str, Value]:
    """Read parameters from decoded JSON."""
    operation = find_operation(name)
    return _complete(operation, _from_mapping(operation, mapping))


def has_text(name: str, parameters: Mapping[str, Value]) -> bool:
    """Say whether these parameters hold anything that a user typed, and so have to be a blob under a key."""
    return any(parameters.get(text) for text in find_operation(name).texts)


def decode_header(value: str) -> dict[str, object]:
    """Decode base64url(JSON object), padded or not; raise InvalidHeader, which never quotes it."""
    if len(value) > MAX_HEADER_CHARS:
        raise InvalidHeader("Lethe-Parameters is too long", pointer="#/headers/Lethe-Parameters")
    try:
        decoded: object = json.loads(_unarmored(value), object_pairs_hook=_refuse_repeats)
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, _Unrepeated):
        detail = "Lethe-Parameters is not base64url of one JSON object without repeated names"
        raise InvalidHeader(detail, pointer="#/headers/Lethe-Parameters")
    return dict(decoded)


class _Unrepeated(dict[str, object]):
    """A JSON object in which no name is repeated."""


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


def _from_query(operation: Operation, pairs: Pairs) -> dict[str, Value]:
    given: dict[str, Value] = {}
    seen: set[str] = set()
    for key, text in pairs:
        if key in seen:
            raise _invalid(key, "is given twice")
        seen.add(key)
        if (key, text) == ("operation", operation.name):
            continue
        parameter = _parameter(operation, key)
        if isinstance(parameter, Text):
            raise ParameterInUrl(pointer=f"#/parameters/{key}")
        given[key] = _accepted(key, parameter.read_text(text))
    return given


def _from_mapping(operation: Operation, mapping: Mapping[str, object]) -> dict[str, Value]:
    return {key: _accepted(key, _parameter(operation, key).read(value)) for key, value in mapping.items()}


def _complete(operation: Operation, given: dict[str, Value]) -> dict[str, Value]:
    for key, parameter in operation.parameters.items():
        if key in given:
            continue
        if parameter.default is None:
            raise _invalid(key, "is missing")
        if parameter.default != "":
            given[key] = parameter.default
    return given


def _parameter(operation: Operation, key: str) -> Parameter:
    if key not in operation.parameters:
        raise _invalid(key, f"is not a parameter of {operation.name}")
    return operation.parameters[key]


def _accepted(key: str, value: Value | None) -> Value:
    if value is None:
        raise _invalid(key, "is out of range")
    return value


def _invalid(key: str, reason: str) -> InvalidParameter:
    # A name that nobody declared may be something a user typed; only what looks like a name is repeated.
    if not _PLAIN_NAME.fullmatch(key):
        return InvalidParameter(f"a parameter {reason}", pointer="#/parameters")
    return InvalidParameter(f"{key} {reason}", pointer=f"#/parameters/{key}")

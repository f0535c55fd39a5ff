"""The vocabulary of operations: their names, the pictures and parameters that each one takes, and what it makes."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from broker.errors import UnknownOperation
from broker.form_errors import WrongPictureCount
from broker.parameters import (
    Choice,
    Integer,
    Pairs,
    Parameter,
    Text,
    Value,
    complete,
    decode_header,
    invalid,
    read_mapping,
    read_pairs,
)


class OutputKind(StrEnum):
    """What an operation makes."""

    IMAGE = "image"
    VIDEO = "video"


class Pictures(NamedTuple):
    """How many pictures an operation takes, at least and at most."""

    min: int
    max: int


class Outputs(NamedTuple):
    """What an operation makes, and how many at most."""

    kind: OutputKind
    max: int


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """Something that Lethe can have done, mostly to pictures."""

    name: str
    description: str
    pictures: Pictures = Pictures(1, 1)
    outputs: Outputs = Outputs(OutputKind.IMAGE, 1)
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

    def require_pictures(self, count: int) -> None:
        """Raise WrongPictureCount when it takes more or fewer."""
        if not self.pictures.min <= count <= self.pictures.max:
            raise WrongPictureCount(f"{self.name} takes {_span(self.pictures)}")


def _count(most: int, default: int) -> Integer:
    return Integer(description="How many results.", minimum=1, maximum=most, default=default)


_PROMPT = Text(description="What the result should show; in the Lethe-Parameters header or in JSON, never in the URL.")
_WISHES = Text(
    description="Wishes for the result; in the Lethe-Parameters header or in JSON, never in the URL.", default=""
)

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
                "prompt": _WISHES,
            },
        ),
        Operation(
            name="edit",
            description="Change a picture, or combine several, as told.",
            pictures=Pictures(1, 16),
            outputs=Outputs(OutputKind.IMAGE, 4),
            parameters={"prompt": _PROMPT, "count": _count(4, default=1)},
        ),
        Operation(
            name="generate",
            description="Make a picture from words.",
            pictures=Pictures(0, 0),
            outputs=Outputs(OutputKind.IMAGE, 4),
            parameters={
                "prompt": _PROMPT,
                "count": _count(4, default=1),
                "size": Choice(
                    description="The shape of the picture.",
                    values=("square", "portrait", "landscape"),
                    default="square",
                ),
            },
        ),
        Operation(
            name="animate",
            description="Make a picture move.",
            outputs=Outputs(OutputKind.VIDEO, 1),
            parameters={
                "prompt": _WISHES,
                "duration_s": Choice(description="How long the film is, in seconds.", values=(5, 10), default=5),
            },
        ),
        Operation(
            name="photoshoot",
            description="Portraits from several photos.",
            pictures=Pictures(1, 20),
            outputs=Outputs(OutputKind.IMAGE, 8),
            parameters={"prompt": _WISHES, "count": _count(8, default=4)},
        ),
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
    """
    Read the parameters of a PUT: its query pairs and its Lethe-Parameters header, defaults filled in.

    A pair that repeats the operation's own name is passed over once.
    """
    declared = find_operation(name).parameters
    given = read_pairs(declared, _without_name(name, pairs))
    for key, value in read_mapping(declared, decode_header(header) if header else {}).items():
        if key in given:
            raise invalid(key, "stands in the URL and in the header")
        given[key] = value
    return complete(declared, given)


def parse_parameters(name: str, mapping: Mapping[str, object]) -> dict[str, Value]:
    """Read parameters from decoded JSON."""
    declared = find_operation(name).parameters
    return complete(declared, read_mapping(declared, mapping))


def parted(name: str, parameters: Mapping[str, Value]) -> tuple[dict[str, Value], bytearray]:
    """Part what may stand in a row from what a user typed: the latter as JSON that can be overwritten, or nothing."""
    typed = find_operation(name).texts
    plain = {key: value for key, value in parameters.items() if key not in typed}
    texts = bytearray()
    if len(plain) < len(parameters):
        _ENCODER.encode_into({key: parameters[key] for key in sorted(typed & parameters.keys())}, texts)
    return plain, texts


def read_texts(data: bytes | bytearray | memoryview) -> dict[str, str]:
    """Read back what `parted` made of the texts."""
    return msgspec.json.decode(data, type=dict[str, str])


_ENCODER = msgspec.json.Encoder()


def _without_name(name: str, pairs: Pairs) -> list[tuple[str, str]]:
    rest = list(pairs)
    if ("operation", name) in rest:
        rest.remove(("operation", name))
    return rest


def _span(pictures: Pictures) -> str:
    least, most = pictures
    if most == 0:
        return "no picture"
    return f"{least} to {most} pictures" if least < most else "one picture" if most == 1 else f"{most} pictures"

"""Fills a model's `input` from a task, and finds its outputs in an answer by JSON pointer (RFC 6901). Pure."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from providers.base import Model, Output
from providers.failures import FailureKind, ProviderFailure

_NAME = re.compile(r"\$([a-z][a-z0-9_]*)(?::(.*))?", re.DOTALL)
_LIKE_A_NAME = re.compile(r"\$\{?[A-Za-z]")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_DATA_URI = re.compile(r"data:([a-z0-9.+/-]*)(?:;[a-z0-9.+=/-]+)*;base64,", re.IGNORECASE)

PICTURES = frozenset({"image", "images"})
"""Names in a template that stand for pictures, as do `image2`, `image3` …"""

ABSENT = None
"""What a name without a value and without a default becomes; in an object its key is left out."""


def render(template: Any, values: Mapping[str, Any]) -> Any:
    """Fill a template: "$name" becomes the value, "$name:default" the value or the default (JSON), absent keys go."""
    if isinstance(template, dict):
        filled = {key: render(part, values) for key, part in cast("dict[str, Any]", template).items()}
        return {key: value for key, value in filled.items() if value is not ABSENT}
    if isinstance(template, list | tuple):
        return [render(part, values) for part in cast("list[Any]", template)]
    if isinstance(template, str) and (match := _NAME.fullmatch(template)):
        return values.get(match[1], ABSENT if match[2] is None else msgspec.json.decode(match[2]))
    return template


def as_text(value: Any) -> str:
    """Write a rendered value as a field of a form: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def names_in(template: Any) -> frozenset[str]:
    """Return every name that a template mentions."""
    names = (_NAME.fullmatch(text) for text in _strings_in(template) if text.startswith("$"))
    return frozenset(match[1] for match in names if match)


def _strings_in(template: Any) -> Iterator[str]:
    """Yield every string of a template, however deep."""
    waiting: list[Any] = [template]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            waiting.extend(cast("dict[str, Any]", part).values())
        elif isinstance(part, list | tuple):
            waiting.extend(cast("list[Any]", part))


def is_picture(name: str) -> bool:
    """Whether a name in a template stands for a picture."""
    return name in PICTURES or bool(re.fullmatch(r"image[0-9]+", name))


def wants_picture(template: Any, n: int) -> bool:
    """Whether a template mentions the n-th picture, counted from 1: one that it does not mention is not sent."""
    return bool(names_in(template) & {"images", f"image{n}", *(["image"] if n == 1 else [])})


def picture_values(pictures: list[Any]) -> dict[str, Any]:
    """Give pictures, in whatever form an adapter sends them, the names that a template may use."""
    if not pictures:
        return {}
    numbered = {f"image{n}": picture for n, picture in enumerate(pictures, 1)}
    return {"image": pictures[0], "images": pictures, **numbered}


def model_for(models: Mapping[str, Model], operation: str) -> Model:
    """Return the model that runs an operation; raise UNSUPPORTED, with nothing sent, where there is none."""
    model = models.get(operation)
    if model is None:
        raise ProviderFailure(FailureKind.UNSUPPORTED, "operation", is_unsent=True)
    return model


def check_template(model: Model) -> str:
    """Say what is wrong with a model's input: a default that is no JSON, a name amid text; empty where nothing is."""
    try:
        render(model.input, {})
    except msgspec.DecodeError:
        return 'the default after a colon has to be JSON, for example $prompt:""'
    # Sent as it stands it would be a success without what was asked for.
    texts = (text for text in _strings_in(model.input) if not _NAME.fullmatch(text))
    amid = next((text for text in texts if _LIKE_A_NAME.search(text)), None)
    return "" if amid is None else f"{amid!r} is sent as it stands: a name like $prompt is filled in where it is alone"


def steps(pointer: str) -> list[str]:
    """Return the names on the way that a JSON pointer goes."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def pointed(document: Any, pointer: str) -> Any:
    """Return what a JSON pointer points to; raise BAD_OUTPUT where there is nothing."""
    found: Any = document
    for name in steps(pointer):
        try:
            found = cast("list[Any]", found)[_index(name)] if isinstance(found, list) else found[name]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ProviderFailure(FailureKind.BAD_OUTPUT, "no_output") from None
    return found


def _index(step: str) -> int:
    if not _INDEX.fullmatch(step):
        raise ValueError("no index")
    return int(step)


def outputs_of(found: Any, *, media_type: str = "") -> tuple[Output, ...]:
    """Turn a URL, a data URI, base64, or a list of them, into outputs; raise BAD_OUTPUT for anything else, or none."""
    many = cast("list[Any]", found) if isinstance(found, list) else [found]
    outputs = tuple(_output(one, media_type) for one in many)
    if not outputs:
        raise ProviderFailure(FailureKind.BAD_OUTPUT, "no_output")
    return outputs


def _output(value: Any, media_type: str) -> Output:
    if not isinstance(value, str) or not value:
        raise ProviderFailure(FailureKind.BAD_OUTPUT, "no_output")
    if value.startswith(("https://", "http://")):
        return Output(url=value, media_type=media_type)
    match = _DATA_URI.match(value)
    if match is None and value.startswith("data:"):
        raise ProviderFailure(FailureKind.BAD_OUTPUT, "data_uri")
    return Output(
        data=decode_base64(value[match.end() :] if match else value), media_type=(match[1] if match else media_type)
    )


def decode_base64(text: str) -> bytes:
    """Decode base64; raise BAD_OUTPUT where it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ProviderFailure(FailureKind.BAD_OUTPUT, "base64") from None

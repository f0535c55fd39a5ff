"""Tensors of the Open Inference Protocol v2 on the wire: JSON, and the binary extension behind it. Pure."""

import math
import re
import struct
from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from providers.calls import UNREADABLE
from providers.failures import FailureKind, ProviderFailure
from providers.templates import decode_base64, outputs_of

LENGTH: Final = "Inference-Header-Content-Length"
"""The header that says where JSON ends and tensors begin."""

_SIZE: Final = struct.Struct("<I")
_DECIMAL: Final = re.compile(r"[0-9]{1,12}")
_NUMBERS: Final = frozenset(
    ["BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP32", "FP64"]
)
DATATYPES: Final = _NUMBERS | {"BYTES"}


class Tensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `[….options.inputs.NAME]` says of an input; what it leaves out follows from the value."""

    name: str = ""
    shape: tuple[int, ...] = ()
    """One dimension may be -1: it takes what there is."""
    datatype: str = ""
    parameters: dict[str, str | int | bool] = {}


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    outputs: list[_Output]
    id: str | None = None


def pictures_tensor(name: str, pictures: Sequence[bytes], tensor: Tensor) -> tuple[dict[str, Any], bytes]:
    """Describe encoded pictures as one tensor, and give its bytes: BYTES elements, or one file as UINT8."""
    if tensor.datatype == "UINT8":
        if len(pictures) != 1:
            raise ProviderFailure(FailureKind.UNSUPPORTED, f"{name}: UINT8 is one picture")
        return described(name, len(pictures[0]), "UINT8", tensor), pictures[0]
    raw = b"".join(_SIZE.pack(len(picture)) + picture for picture in pictures)
    return described(name, len(pictures), "BYTES", tensor), raw


def value_tensor(name: str, value: Any, tensor: Tensor) -> dict[str, Any]:
    """Write a parameter, or a list of them, as a tensor in JSON."""
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    datatype = tensor.datatype or _datatype_of(values, name)
    return {**described(name, len(values), datatype, tensor), "data": values}


def described(name: str, count: int, datatype: str, tensor: Tensor) -> dict[str, Any]:
    """Describe a tensor without its data; raise UNSUPPORTED where its shape does not fit."""
    shape = _shape(tensor.shape, count) if tensor.shape else [count]
    if math.prod(shape) != count:
        raise ProviderFailure(FailureKind.UNSUPPORTED, f"{name}: its shape does not fit")
    head: dict[str, Any] = {"name": tensor.name or name, "shape": shape, "datatype": datatype}
    return {**head, "parameters": dict(tensor.parameters)} if tensor.parameters else head


def _shape(wanted: tuple[int, ...], count: int) -> list[int]:
    others = math.prod(size for size in wanted if size != -1)
    return [count // others if size == -1 and others else size for size in wanted]


def _datatype_of(values: list[Any], name: str) -> str:
    kinds: set[type] = {type(value) for value in values}
    for kind, datatype in ((str, "BYTES"), (bool, "BOOL"), (int, "INT32")):
        if kinds == {kind}:
            return datatype
    if kinds <= {int, float} and kinds:
        return "FP32"
    raise ProviderFailure(FailureKind.UNSUPPORTED, f"{name}: no tensor is made of this")


def pictures_in(body: bytes, length: str | None, *, name: str, attempt: str) -> tuple[bytes, ...]:
    """
    Find the pictures of an answer, in the output of this name, or in the only one.

    `length` is what the header of that name says. Sizes and shapes are the server's claims: one that its answer does
    not bear out is BAD_OUTPUT, and so is an answer to another request. UNCERTAIN where the answer cannot be read.
    """
    head, tail = _split(body, length)
    try:
        answer = msgspec.json.decode(head, type=_Answer)
    except UNREADABLE:
        raise ProviderFailure(FailureKind.UNCERTAIN, "unreadable_answer") from None
    if answer.id and answer.id != attempt:
        raise _bad("other_id")
    raw = _raw_of(answer.outputs, tail)
    found = [n for n, output in enumerate(answer.outputs) if not name or output.name == name]
    if len(found) != 1:
        raise _bad("no_output")
    output, given = answer.outputs[found[0]], raw[found[0]]
    pictures = _in_binary(output, given) if given is not None else _in_json(output)
    if not pictures or not all(pictures):
        raise _bad("no_output")
    return pictures


def _split(body: bytes, length: str | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    if length is None:
        return view, view[len(view) :]
    if not _DECIMAL.fullmatch(length) or int(length) > len(body):
        raise _bad("header_size")
    return view[: int(length)], view[int(length) :]


def _raw_of(outputs: list[_Output], tail: memoryview) -> list[memoryview | None]:
    raw: list[memoryview | None] = []
    for output in outputs:
        size = (output.parameters or {}).get("binary_data_size")
        if size is None:
            raw.append(None)
            continue
        if not isinstance(size, int) or not 0 <= size <= len(tail):
            raise _bad("tensor_size")
        raw.append(tail[:size])
        tail = tail[size:]
    if tail:
        raise _bad("trailing_bytes")
    return raw


def _in_binary(output: _Output, raw: memoryview) -> tuple[bytes, ...]:
    if output.datatype == "UINT8":
        _check_count(output, len(raw))
        return (bytes(raw),)
    if output.datatype != "BYTES":
        raise _bad("datatype")
    elements: list[bytes] = []
    while raw:
        end = _SIZE.size + _SIZE.unpack_from(raw)[0] if len(raw) >= _SIZE.size else len(raw) + 1
        if end > len(raw):
            raise _bad("element_size")
        elements.append(bytes(raw[_SIZE.size : end]))
        raw = raw[end:]
    _check_count(output, len(elements))
    return tuple(elements)


def _in_json(output: _Output) -> tuple[bytes, ...]:
    values = _flat(output.data or [])
    _check_count(output, len(values))
    if output.datatype == "BYTES":
        return tuple(_decoded(value) for value in values)
    if output.datatype == "UINT8" and all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        return (bytes(cast("list[int]", values)),)
    raise _bad("datatype")


def _decoded(value: Any) -> bytes:
    """Read base64 or a data URI."""
    if isinstance(value, str) and value.startswith("data:"):
        return outputs_of(value)[0].data or b""
    return decode_base64(value) if isinstance(value, str) else b""


def _flat(values: list[Any]) -> list[Any]:
    while any(isinstance(value, list) for value in values):
        nested = [cast("list[Any]", value) if isinstance(value, list) else [value] for value in values]
        values = [value for part in nested for value in part]
    return values


def _check_count(output: _Output, count: int) -> None:
    if any(size < 0 for size in output.shape) or math.prod(output.shape) != count:
        raise _bad("shape")


def _bad(detail: str) -> ProviderFailure:
    return ProviderFailure(FailureKind.BAD_OUTPUT, detail)

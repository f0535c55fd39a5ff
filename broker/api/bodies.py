"""Small JSON bodies: one object, bounded, read as it comes."""

import asyncio
from base64 import b64decode
from contextlib import aclosing
from typing import TypeVar

import msgspec
from litestar.exceptions import HTTPException

from broker.api.deps import HttpRequest
from broker.api.submitting import refuse_two_lengths, stream_of
from broker.errors import InvalidParameter, UploadIncomplete
from broker.incoming import Body
from broker.parameters import decode_json, invalid
from broker.services import Services

MAX_BYTES = 8_192
READ_WITHIN_S = 10.0

T = TypeVar("T")


async def read_json(request: HttpRequest, services: Services) -> bytearray:
    """Read a body that says it is JSON, without looking into it."""
    refuse_two_lengths(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(status_code=415, headers={"Accept": "application/json"})
    body = Body(stream_of(request), max_bytes=MAX_BYTES, idle_s=services.settings.upload_idle_s)
    data = bytearray()
    try:
        async with asyncio.timeout(READ_WITHIN_S), aclosing(body.chunks()) as chunks:
            async for chunk in chunks:
                data += chunk
    except TimeoutError as exc:
        raise UploadIncomplete from exc
    return data


async def read_object(request: HttpRequest, services: Services, *, names: frozenset[str]) -> dict[str, object]:
    """Read one JSON object that has no other members than these; raise what is wrong with it."""
    return object_in(await read_json(request, services), names=names)


def struct_in(data: bytearray, kind: type[T], *, form: str) -> T:
    """Decode a struct that is whole; raise InvalidParameter, which says what it should be, and never what it was."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):  # may hold the body, so that it is no cause of what is raised
        pass
    raise InvalidParameter(form)


def object_in(data: bytearray, *, names: frozenset[str]) -> dict[str, object]:
    """Decode one JSON object that has no other members than these; raise InvalidJson, or InvalidParameter."""
    found = decode_json(data)
    if strange := found.keys() - names:
        raise invalid(min(strange), "is not known here", at="#")
    return found


def bytes_of(found: dict[str, object], name: str) -> bytes:
    """Return what a member holds in base64 (RFC 4648 section 4, padded); raise InvalidParameter."""
    text = found.get(name)
    if not isinstance(text, str):
        raise invalid(name, "is missing, or no text", at="#")
    try:
        return b64decode(text, validate=True)
    except ValueError:  # holds what it could not decode, so that it is no cause of what is raised
        pass
    raise invalid(name, "is not base64", at="#")

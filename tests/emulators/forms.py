"""Reads forms (multipart/form-data) as strictly as a server does."""

import io
import re
from collections.abc import Iterable
from typing import cast

import msgspec
from multipart import MultipartParser, MultipartPart

from tests.emulators.base import Seen

_TYPE = re.compile(r'multipart/form-data; boundary="?([^";]+)"?')


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a form; a field has no file name."""

    name: str
    content: bytes
    file_name: str | None
    media_type: str


def parts_of(seen: Seen) -> list[Part]:
    """Take a form apart; raise where it is none."""
    match = _TYPE.fullmatch(seen.headers["content-type"])
    assert match
    limit = len(seen.body) + 1
    parser = MultipartParser(io.BytesIO(seen.body), match[1], strict=True, spool_limit=limit, memory_limit=limit)
    parts = cast("Iterable[MultipartPart]", parser)
    return [
        Part(name=part.name or "", content=part.raw, file_name=part.filename, media_type=part.content_type)
        for part in parts
    ]


def fields_of(seen: Seen) -> dict[str, str]:
    """Return the fields that are no files."""
    return {part.name: part.content.decode() for part in parts_of(seen) if part.file_name is None}


def files_in(seen: Seen) -> list[Part]:
    """Return the files, in their order."""
    return [part for part in parts_of(seen) if part.file_name is not None]

"""
A multipart/form-data body as a stream: first the part `job`, which is JSON, then parts called `picture`.

Nothing is kept and no file is made; names of files are dropped unread.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from email.message import Message

from multipart import MultipartError, MultipartSegment, ParserError, PushMultipartParser

from broker.errors import UploadIncomplete, UploadTooLarge
from broker.form_errors import InvalidForm, UnexpectedPart
from broker.secret_memory import wipe

MEDIA_TYPE = "multipart/form-data"
JOB = "job"
PICTURE = "picture"
MAX_JOB_BYTES = 16_384
MAX_HEADER_BYTES = 2_048
MAX_PARTS = 64

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_ENCODINGS = frozenset({"binary", "8bit", "7bit"})

_Event = MultipartSegment | bytes | None
"""What the parser tells: a part begins, some of it, it ends."""


def boundary_of(content_type: str) -> str:
    """Return the boundary that a Content-Type names; raise InvalidForm."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not _BOUNDARY.fullmatch(boundary):
        raise InvalidForm("the Content-Type names no boundary that may be one")
    return boundary


class _Parser(PushMultipartParser):
    """Refuses at once what the library refuses, or takes, depending on how the body was cut."""

    def _on_segment_headerline(self, line: bytes) -> None:
        if len(line) > MAX_HEADER_BYTES or line.startswith((b" ", b"\t")) or _CONTROL.search(line):
            raise ParserError
        super()._on_segment_headerline(line)


class Form:
    """One form, read once: job(), then pictures()."""

    def __init__(self, chunks: AsyncIterator[bytes], boundary: str) -> None:
        self._delimiter = b"--" + boundary.encode()
        # Twice what is allowed: this one counts what has arrived of a line, and so depends on how the body was cut.
        self._parser = _Parser(
            boundary, max_header_size=2 * MAX_HEADER_BYTES, max_header_count=8, max_segment_count=MAX_PARTS
        )
        self._events = self._parsed(chunks)

    async def job(self) -> bytearray:
        """Return the first part, which is the caller's to overwrite; raise UnexpectedPart when it is another one."""
        part = await self._next_part()
        if part is None or part.name != JOB or part.content_type != "application/json":
            raise UnexpectedPart("the first part is not called job, or is not application/json")
        data = bytearray()
        async for piece in self._content():
            if len(data) + len(piece) > MAX_JOB_BYTES:
                wipe(data)
                raise UploadTooLarge(f"the job is larger than {MAX_JOB_BYTES} bytes")
            data += piece
        return data

    async def pictures(self) -> AsyncGenerator[AsyncGenerator[bytes]]:
        """Yield the other parts, each of which is to be read to its end before the next."""
        while (part := await self._next_part()) is not None:
            if part.name != PICTURE:
                raise UnexpectedPart("a part after the first is not called picture")
            yield self._content()

    async def aclose(self) -> None:
        """Let go of what is buffered."""
        self._parser.close(check_complete=False)
        await self._events.aclose()

    async def _next_part(self) -> MultipartSegment | None:
        part = await anext(self._events, None)
        if part is None:
            return None
        assert isinstance(part, MultipartSegment)
        headers = dict(part.headerlist)
        if len(headers) != len(part.headerlist):
            raise InvalidForm("a part has the same header twice")
        if headers.get("Content-Transfer-Encoding", "binary").lower() not in _ENCODINGS:
            raise UnexpectedPart("a part is encoded")
        if (part.content_type or "").startswith("multipart/"):
            raise UnexpectedPart("a part is a form itself")
        return part

    async def _content(self) -> AsyncGenerator[bytes]:
        async for event in self._events:
            if not isinstance(event, bytes):
                return
            yield event

    async def _parsed(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[_Event]:
        async for chunk in self._begun(chunks):
            # The parser's own errors quote what it read: none of them is the cause, or the context, of ours.
            is_broken = False
            try:
                for event in self._parser.parse(chunk):
                    yield event
            except MultipartError:
                is_broken = True
            if is_broken:
                raise InvalidForm
        if not self._is_complete():
            raise UploadIncomplete

    async def _begun(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        # Nothing may stand before the first boundary: the parser's own mind on it depends on how the body was cut.
        head = b""
        async for chunk in chunks:
            head += chunk
            if len(head) >= len(b"\r\n" + self._delimiter + b"\r\n"):
                break
        if any(start.startswith(head) for start in (self._delimiter, b"\r\n" + self._delimiter)):
            raise UploadIncomplete
        if not head.removeprefix(b"\r\n").startswith(self._delimiter):
            raise InvalidForm("the body does not begin with the boundary that its Content-Type names")
        yield head
        async for chunk in chunks:
            yield chunk

    def _is_complete(self) -> bool:
        try:
            self._parser.close()
        except MultipartError:
            return False
        return True

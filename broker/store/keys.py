"""The client of a keyholder. Keys pass through buffers that are overwritten, never through a `bytes` object."""

import asyncio
import os
import socket
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar, cast

from broker.errors import KeyholderUnavailable
from broker.frames import (
    FRAME_BYTES,
    INCARNATION_BYTES,
    KEY_BYTES,
    KEY_ID_BYTES,
    Answer,
    FrameInvalid,
    KeyholderStats,
    Verb,
    body,
    read_head,
    read_stats,
    write_head,
)
from broker.secret_memory import wipe

_T = TypeVar("_T")

TIMEOUT_S: Final = 2.0

_IN_FLIGHT = 128
_SEND_BUFFER_BYTES = 1024 * 1024
_CARRIES_BODY = {Answer.KEY, Answer.INCARNATION, Answer.STATS}


class PutAnswer(StrEnum):
    """What became of a key that was to be kept."""

    OK = "ok"
    EXISTS = "exists"  # this id has a key already, which stays
    GONE = "gone"  # this id was shredded
    FULL = "full"


class OpenAnswer(StrEnum):
    """Whether the key was handed out."""

    OK = "ok"
    GONE = "gone"  # shredded, at its end, or never here
    STALE = "stale"  # somebody with a higher fence was here before


_PUT_ANSWERS = {
    Answer.OK: PutAnswer.OK,
    Answer.EXISTS: PutAnswer.EXISTS,
    Answer.GONE: PutAnswer.GONE,
    Answer.FULL: PutAnswer.FULL,
}
_OPEN_ANSWERS = {Answer.KEY: OpenAnswer.OK, Answer.GONE: OpenAnswer.GONE, Answer.STALE: OpenAnswer.STALE}
_HAS_ANSWERS = {Answer.YES: True, Answer.NO: False}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)  # a repr would copy the key into a log or traceback
class _Request:
    verb: Verb
    key_id: bytes = bytes(KEY_ID_BYTES)
    number: int = 0
    given: bytearray | None = None
    into: memoryview | None = None

    def __post_init__(self) -> None:
        sizes = [len(place) for place in (self.given, self.into) if place is not None]
        is_endless = self.verb in {Verb.PUT, Verb.SHRED} and self.number < 1
        if len(self.key_id) != KEY_ID_BYTES or sizes not in ([], [KEY_BYTES]) or is_endless:
            msg = f"a key id has {KEY_ID_BYTES} bytes, a key {KEY_BYTES}, a ttl at least one second"
            raise ValueError(msg)


class _Connection(asyncio.BufferedProtocol):
    """One connection: requests go out in order and answers come back in the same order."""

    def __init__(self) -> None:
        self.incarnation = b""
        self.lost = asyncio.Event()
        self._out = memoryview(bytearray(FRAME_BYTES))
        self._received = memoryview(bytearray(_IN_FLIGHT * FRAME_BYTES))
        self._received_bytes = 0
        self._waiting: deque[tuple[_Request, asyncio.Future[Answer]]] = deque()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = cast("socket.socket", transport.get_extra_info("socket"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._transport = None
        self.lost.set()
        wipe(self._received)
        while self._waiting:
            _, answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(KeyholderUnavailable("the keyholder closed the connection"))

    def send(self, request: _Request) -> asyncio.Future[Answer]:
        """Put the request on its way; the answer comes with the future."""
        if self._transport is None or not self.is_open:
            raise KeyholderUnavailable
        try:
            write_head(self._out, request.verb, number=request.number, key_id=request.key_id)
            if request.given is not None:
                body(self._out)[:] = request.given
            # Past the transport, which would copy what it cannot send at once.
            sent = os.write(cast("socket.socket", self._transport.get_extra_info("socket")).fileno(), self._out)
        except OSError as exc:
            self.abort()
            raise KeyholderUnavailable from exc
        finally:
            wipe(self._out)
        if sent < FRAME_BYTES:
            self.abort()
            raise KeyholderUnavailable
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        return answer

    def abort(self) -> None:
        """Close at once; everyone who waits learns that the keyholder is unavailable."""
        if self._transport:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio names it
        return self._received[self._received_bytes :]

    def buffer_updated(self, nbytes: int) -> None:
        self._received_bytes += nbytes
        whole = self._received_bytes // FRAME_BYTES * FRAME_BYTES
        try:
            for at in range(0, whole, FRAME_BYTES):
                self._take(self._received[at : at + FRAME_BYTES])
        except FrameInvalid:
            self.abort()
        finally:
            rest = self._received_bytes - whole
            self._received[:rest] = self._received[whole : self._received_bytes]
            wipe(self._received[rest : self._received_bytes])
            self._received_bytes = rest

    def _take(self, frame: memoryview) -> None:
        head = read_head(frame)
        if not self._waiting or head.key_id != self._waiting[0][0].key_id:
            raise FrameInvalid
        known = _known_answer(head.code)
        request, answer = self._waiting.popleft()
        # Whoever gave up may have other use for the buffer by now.
        if answer.done():
            return
        if known in _CARRIES_BODY and request.into is not None:
            request.into[:] = body(frame)
        answer.set_result(known)


class _Link:
    """A connection that comes back by itself."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._in_flight = asyncio.Semaphore(_IN_FLIGHT)
        self._is_closed = False

    async def ask(self, request: _Request, *, incarnation: bytes = b"") -> Answer:
        """Ask once; whoever gets KeyholderUnavailable cannot know whether it was done."""
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(TIMEOUT_S), self._in_flight:
                connection = await self._connected()
                if incarnation and incarnation != connection.incarnation:
                    raise KeyholderUnavailable("another incarnation of the keyholder answers")
                return await connection.send(request)
        except TimeoutError as exc:
            if connection:
                connection.abort()
            raise KeyholderUnavailable from exc
        except OSError as exc:
            raise KeyholderUnavailable from exc

    async def aclose(self) -> None:
        self._is_closed = True
        if self._connection:
            self._connection.abort()
            await self._connection.lost.wait()

    async def _connected(self) -> _Connection:
        if self._connection and self._connection.is_open:
            return self._connection
        async with self._connecting:
            if self._is_closed:
                raise KeyholderUnavailable
            if self._connection is None or not self._connection.is_open:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(_Connection, self._socket_path)
        try:
            told = bytearray(KEY_BYTES)
            answer = await connection.send(_Request(verb=Verb.HELLO, into=memoryview(told)))
            connection.incarnation = _expected(answer, {Answer.INCARNATION: bytes(told[:INCARNATION_BYTES])})
        except BaseException:
            connection.abort()
            raise
        return connection


class Keyholder:
    """
    Keeps, hands out and shreds keys; connects when first asked, and again after every loss.

    Whatever goes wrong is KeyholderUnavailable. After that a PUT or SHRED may or may not have been done: repeat the
    SHRED, and give up the id of the PUT.
    """

    def __init__(self, socket_path: str) -> None:
        self._link = _Link(socket_path)
        # What one connection did is looked at through another, so that a mix-up on the first cannot vouch for itself.
        self._witness = _Link(socket_path)

    async def put(self, key_id: bytes, key: bytearray, *, ttl_s: int, incarnation: bytes = b"") -> PutAnswer:
        """Keep a new key; where `incarnation` is given, only with that one, which a custody row may already name."""
        request = _Request(
            verb=Verb.PUT,
            key_id=key_id,
            number=ttl_s,
            given=key,
        )
        return _expected(await self._link.ask(request, incarnation=incarnation), _PUT_ANSWERS)

    async def open_into(self, key_id: bytes, buffer: bytearray, *, fence: int) -> OpenAnswer:
        """Copy the key into the buffer, which is the caller's to wipe, also when this raises."""
        with memoryview(buffer) as into:
            request = _Request(verb=Verb.OPEN, key_id=key_id, number=fence, into=into)
            return _expected(await self._link.ask(request), _OPEN_ANSWERS)

    async def shred(self, key_id: bytes, *, ttl_s: int) -> None:
        """Destroy the key and let no PUT bring it back for so long; may be repeated."""
        request = _Request(verb=Verb.SHRED, key_id=key_id, number=ttl_s)
        if await self._link.ask(request) is not Answer.OK:
            raise KeyholderUnavailable("the keyholder has no room for a tombstone")

    async def has(self, key_id: bytes) -> bool:
        """Say whether the key is there, as seen from a second connection."""
        return _expected(await self._witness.ask(_Request(verb=Verb.HAS, key_id=key_id)), _HAS_ANSWERS)

    async def hello(self) -> bytes:
        """Return the incarnation: another one than before proves that every key of the former is gone."""
        told = bytearray(KEY_BYTES)
        answer = await self._link.ask(_Request(verb=Verb.HELLO, into=memoryview(told)))
        return _expected(answer, {Answer.INCARNATION: bytes(told[:INCARNATION_BYTES])})

    async def stats(self) -> KeyholderStats:
        """Ask how full it is, and how well its memory is kept."""
        figures = bytearray(KEY_BYTES)
        answer = await self._link.ask(_Request(verb=Verb.STATS, into=memoryview(figures)))
        try:
            return read_stats(memoryview(_expected(answer, {Answer.STATS: figures})))
        except FrameInvalid as exc:
            raise KeyholderUnavailable from exc

    async def aclose(self) -> None:
        """Close both connections."""
        await self._link.aclose()
        await self._witness.aclose()


def _known_answer(code: int) -> Answer:
    try:
        return Answer(code)
    except ValueError:
        raise FrameInvalid from None


def _expected(answer: Answer, answers: dict[Answer, _T]) -> _T:
    try:
        return answers[answer]
    except KeyError:
        raise KeyholderUnavailable("the keyholder gave no answer to this question") from None

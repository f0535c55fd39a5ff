"""One connection to a keyholder that comes back by itself: frames out and in, answers matched in their order."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from broker.errors import KeyholderUnavailable
from broker.frames import (
    FRAME_BYTES,
    INCARNATION_BYTES,
    KEY_BYTES,
    KEY_ID_BYTES,
    TAKES_NO_KEYS,
    Answer,
    FrameInvalid,
    Role,
    Verb,
    body,
    read_head,
    write_head,
)
from broker.secret_memory import wipe
from broker.wire import TlsFiles, client_context, host_and_port, is_path, role_of, send, widen

_T = TypeVar("_T")

TIMEOUT_S: Final = 2.0

_IN_FLIGHT = 128
_CARRIES_BODY = {Answer.KEY, Answer.INCARNATION, Answer.STATS}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)  # a repr would copy the key into a log or traceback
class Request:
    """One question; `given` and `into` stay the caller's to wipe."""

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


class Connection(asyncio.BufferedProtocol):
    """One connection: requests go out in order and answers come back in the same order."""

    def __init__(self) -> None:
        self.incarnation = b""
        self.takes_keys = True
        self.lost = asyncio.Event()
        self._out = memoryview(bytearray(FRAME_BYTES))
        self._received = memoryview(bytearray(_IN_FLIGHT * FRAME_BYTES))
        self._received_bytes = 0
        self._waiting: deque[tuple[Request, asyncio.Future[Answer]]] = deque()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        widen(transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._transport = None
        self.lost.set()
        wipe(self._received)
        while self._waiting:
            _, answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(KeyholderUnavailable("the keyholder closed the connection"))

    def send(self, request: Request) -> asyncio.Future[Answer]:
        """Put the request on its way; the answer comes with the future."""
        if self._transport is None or not self.is_open:
            raise KeyholderUnavailable
        try:
            write_head(self._out, request.verb, number=request.number, key_id=request.key_id)
            if request.given is not None:
                body(self._out)[:] = request.given
            is_sent = send(self._transport, self._out)
        finally:
            wipe(self._out)
        if not is_sent:
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
        self.takes_keys = head.number != TAKES_NO_KEYS
        request, answer = self._waiting.popleft()
        # Whoever gave up may have other use for the buffer by now.
        if answer.done():
            return
        if known in _CARRIES_BODY and request.into is not None:
            request.into[:] = body(frame)
        answer.set_result(known)


class Link:
    """A connection that comes back by itself."""

    def __init__(self, address: str, files: TlsFiles | None) -> None:
        self._address = address
        self._files = files
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._in_flight = asyncio.Semaphore(_IN_FLIGHT)
        self._is_closed = False

    @property
    def takes_keys(self) -> bool:
        """Whether the keyholder is connected and, by what it last said, takes new keys."""
        return self._connection is not None and self._connection.is_open and self._connection.takes_keys

    async def ask(self, request: Request, *, incarnation: bytes = b"") -> Answer:
        """Ask once; whoever gets KeyholderUnavailable cannot know whether it was done."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(TIMEOUT_S), self._in_flight:
                connection = await self.connected()
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

    async def connected(self) -> Connection:
        """Return the open connection; make one if there is none."""
        if self._connection and self._connection.is_open:
            return self._connection
        async with self._connecting:
            if self._is_closed:
                raise KeyholderUnavailable
            if self._connection is None or not self._connection.is_open:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> Connection:
        connection = await self._reach()
        try:
            told = bytearray(KEY_BYTES)
            answer = await connection.send(Request(verb=Verb.HELLO, into=memoryview(told)))
            connection.incarnation = expected(answer, {Answer.INCARNATION: bytes(told[:INCARNATION_BYTES])})
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _reach(self) -> Connection:
        loop = asyncio.get_running_loop()
        if is_path(self._address):
            return (await loop.create_unix_connection(Connection, self._address))[1]
        if self._files is None:
            raise KeyholderUnavailable("between machines a keyholder is spoken to with a certificate alone")
        host, port = host_and_port(self._address)
        # Read at every connection, so that certificates can be replaced while we run.
        context = client_context(self._files)
        transport, connection = await loop.create_connection(
            Connection, host, port, ssl=context, server_hostname=host, ssl_handshake_timeout=TIMEOUT_S
        )
        if role_of(transport) is not Role.KEYHOLDER:
            connection.abort()
            raise KeyholderUnavailable("whoever answers there has no keyholder's certificate")
        return connection


def expected(answer: Answer, answers: dict[Answer, _T]) -> _T:
    """Say what an answer means; raise KeyholderUnavailable for one that does not fit the question."""
    try:
        return answers[answer]
    except KeyError:
        raise KeyholderUnavailable("the keyholder gave no answer to this question") from None


def _known_answer(code: int) -> Answer:
    try:
        return Answer(code)
    except ValueError:
        raise FrameInvalid from None

"""What a keyholder says to one client: a frame comes in, a frame goes out, and both places are overwritten."""

import asyncio
from typing import cast

import msgspec
import structlog

from broker.frames import (
    FRAME_BYTES,
    INCARNATION_BYTES,
    TAKES_NO_KEYS,
    Answer,
    FrameInvalid,
    Head,
    Role,
    Verb,
    body,
    read_head,
    write_head,
    write_stats,
)
from broker.hardening import observed
from broker.keytable import KeyTable
from broker.secret_memory import wipe
from broker.wire import role_of, send, widen

_BATCH_BYTES = 128 * FRAME_BYTES

log = structlog.get_logger()


class KeyService:
    """Turns one request frame into one answer frame; knows nothing of connections."""

    def __init__(self, table: KeyTable, *, incarnation: bytes) -> None:
        self._table = table
        self._incarnation = incarnation
        self.is_draining = False

    def answer(self, request: memoryview, reply: memoryview, *, by: Role) -> None:
        """Write the answer; raise FrameInvalid for what is no request."""
        head = read_head(request)
        answer = self._reply(head, body(request), body(reply), by=by)
        if answer is Answer.DENIED:
            log.warning("keyholder_role_refused", role=by, code=Verb(head.code).name)
        number = TAKES_NO_KEYS if self.is_draining or self._table.is_full else 0
        write_head(reply, answer, number=number, key_id=head.key_id)

    def _reply(self, head: Head, given: memoryview, out: memoryview, *, by: Role) -> Answer:
        match head.code:
            case Verb.PUT if head.number:
                return self._table.put(head.key_id, given, ttl_s=head.number, by=by)
            case Verb.OPEN:
                return self._table.open_into(head.key_id, out, fence=head.number, by=by)
            case Verb.SHRED if head.number:
                return self._table.shred(head.key_id, ttl_s=head.number)
            case Verb.HAS:
                return self._table.has(head.key_id)
            case Verb.HELLO:
                out[:INCARNATION_BYTES] = self._incarnation
                return Answer.INCARNATION
            case Verb.STATS:
                write_stats(out, msgspec.structs.replace(self._table.stats(), hardening=observed()))
                return Answer.STATS
            case _:
                raise FrameInvalid


class Connection(asyncio.BufferedProtocol):
    """One client: frames come in and answers go out through two buffers that are overwritten after each use."""

    def __init__(self, service: KeyService, open_connections: set["Connection"]) -> None:
        self._service = service
        self._open_connections = open_connections
        self._received = memoryview(bytearray(_BATCH_BYTES))
        self._replies = memoryview(bytearray(_BATCH_BYTES))
        self._received_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._role = Role.LOCAL

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        widen(transport)
        self._open_connections.add(self)
        role = role_of(transport)
        if role is None or role is Role.KEYHOLDER:
            log.warning("keyholder_client_refused", code="no_role")
            self.abort()
        else:
            self._role = role

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        wipe(self._received)
        self._open_connections.discard(self)
        self._transport = None

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio names it
        return self._received[self._received_bytes :]

    def buffer_updated(self, nbytes: int) -> None:
        self._received_bytes += nbytes
        whole = self._received_bytes // FRAME_BYTES * FRAME_BYTES
        try:
            self._answer(whole)
        except FrameInvalid:
            log.warning("keyholder_frame_invalid")
            self.abort()
        finally:
            self._move_to_front(whole)

    def abort(self) -> None:
        """Close at once; nothing that is still to be sent is."""
        if self._transport:
            self._transport.abort()

    def _answer(self, whole: int) -> None:
        try:
            for at in range(0, whole, FRAME_BYTES):
                end = at + FRAME_BYTES
                self._service.answer(self._received[at:end], self._replies[at:end], by=self._role)
            self._send(self._replies[:whole])
        finally:
            wipe(self._replies[:whole])

    def _send(self, replies: memoryview) -> None:
        # A client that does not read is cut off.
        if replies and self._transport is not None and not send(self._transport, replies):
            self.abort()

    def _move_to_front(self, whole: int) -> None:
        rest = self._received_bytes - whole
        self._received[:rest] = self._received[whole : self._received_bytes]
        wipe(self._received[rest : self._received_bytes])
        self._received_bytes = rest

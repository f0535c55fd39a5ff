"""Frames between a keyholder and whoever asks it: any bytes, in either direction."""

import asyncio
import contextlib
from typing import Any, Final

from broker.errors import KeyholderUnavailable
from broker.frames import FRAME_BYTES, KEY_BYTES, Answer, FrameInvalid, Memory, Role, Verb, body, write_head
from broker.keyservice import KeyService
from broker.keytable import KeyTable
from broker.secret_memory import SecretPages
from broker.store.keyholder_link import Connection, Request

KEY: Final = bytes(range(KEY_BYTES))
KEY_ID: Final = KEY[:16]
_ASKED: Final = (Verb.HELLO, Verb.OPEN, Verb.HAS, Verb.STATS)


def ask(data: bytes) -> None:
    """Ask a keyholder that holds a key: nobody gets it whose frame does not name it."""
    pages = SecretPages(2 * KEY_BYTES, kinds=[Memory.PLAIN])
    try:
        service = KeyService(KeyTable(pages, max_ttl_s=60, max_tombstones=4), incarnation=bytes(16))
        held, reply = memoryview(bytearray(_put(KEY_ID))), memoryview(bytearray(FRAME_BYTES))
        service.answer(held, reply, by=Role.LOCAL)
        for at in range(0, len(data), FRAME_BYTES):
            frame = bytearray(data[at : at + FRAME_BYTES].ljust(FRAME_BYTES, b"\0"))
            reply[:] = bytes(FRAME_BYTES)
            with contextlib.suppress(FrameInvalid):
                service.answer(memoryview(frame), reply, by=Role.LOCAL)
            assert KEY not in bytes(reply) or KEY_ID in frame or KEY in data
    finally:
        pages.close()


def hear(data: bytes) -> None:
    """Hear a keyholder that says anything: every question ends, and nothing that came stays in the buffer."""
    asyncio.run(_hear(data))


async def _hear(data: bytes) -> None:
    connection, wire = Connection(), _Wire()
    connection.connection_made(wire)
    into = bytearray(KEY_BYTES)
    asked = [connection.send(Request(verb=verb, key_id=KEY_ID, into=memoryview(into))) for verb in _ASKED]
    while data and connection.is_open:
        buffer = connection.get_buffer(-1)
        count = min(len(buffer), len(data), FRAME_BYTES + 7)  # a frame seldom comes by itself
        buffer[:count] = data[:count]
        data = data[count:]
        connection.buffer_updated(count)
    connection.connection_lost(None)
    for answer in asked:
        assert answer.done()
        assert isinstance(answer.exception() or answer.result(), Answer | KeyholderUnavailable)
    assert not any(connection.get_buffer(-1)), "a key may have been in it"


class _Wire(asyncio.Transport):
    """Takes whatever is written, as one with TLS does, and leads nowhere."""

    is_aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "ssl_object" else default

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        del data

    def get_write_buffer_size(self) -> int:
        return 0


def _put(key_id: bytes) -> bytes:
    frame = bytearray(FRAME_BYTES)
    write_head(memoryview(frame), Verb.PUT, number=60, key_id=key_id)
    frame[-KEY_BYTES:] = KEY
    return bytes(frame)


def _frame(code: Verb | Answer, content: bytes = b"") -> bytes:
    frame = bytearray(FRAME_BYTES)
    write_head(memoryview(frame), code, number=1, key_id=KEY_ID)
    body(memoryview(frame))[: len(content)] = content
    return bytes(frame)


QUESTIONS: Final = (b"".join(_frame(verb) for verb in Verb), _put(bytes(16)) + _frame(Verb.OPEN))
ANSWERS: Final = (
    b"".join(_frame(answer) for answer in (Answer.INCARNATION, Answer.KEY, Answer.YES, Answer.STATS)),
    _frame(Answer.INCARNATION) + _frame(Answer.KEY, KEY) + _frame(Answer.GONE),
    *(_frame(answer, KEY) for answer in Answer),
)

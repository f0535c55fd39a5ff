"""The client of a keyholder. Keys pass through buffers that are overwritten, never through a `bytes` object."""

import asyncio
from enum import StrEnum

from broker.errors import KeyholderUnavailable
from broker.frames import (
    INCARNATION_BYTES,
    KEY_BYTES,
    Answer,
    FrameInvalid,
    KeyholderStats,
    Verb,
    read_stats,
)
from broker.store.keyholder_link import TIMEOUT_S, Link, Request, expected
from broker.wire import TlsFiles


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


class Keyholder:
    """
    Keeps, hands out and shreds keys; connects when first asked, and again after every loss.

    Whatever goes wrong is KeyholderUnavailable. After that a PUT or SHRED may or may not have been done: repeat the
    SHRED, and give up the id of the PUT.
    """

    def __init__(self, address: str, files: TlsFiles | None = None) -> None:
        self.address = address
        self._link = Link(address, files)
        # What one connection did is looked at through another, so that a mix-up on the first cannot vouch for itself.
        self._witness = Link(address, files)

    @property
    def takes_keys(self) -> bool:
        """Whether it is connected and, by its last answer, neither full nor being drained."""
        return self._link.takes_keys

    async def put(self, key_id: bytes, key: bytearray, *, ttl_s: int, incarnation: bytes = b"") -> PutAnswer:
        """Keep a new key; where `incarnation` is given, only with that one, which a custody row may already name."""
        request = Request(
            verb=Verb.PUT,
            key_id=key_id,
            number=ttl_s,
            given=key,
        )
        return expected(await self._link.ask(request, incarnation=incarnation), _PUT_ANSWERS)

    async def open_into(self, key_id: bytes, buffer: bytearray, *, fence: int) -> OpenAnswer:
        """Copy the key into the buffer, which is the caller's to wipe, also when this raises."""
        with memoryview(buffer) as into:
            request = Request(verb=Verb.OPEN, key_id=key_id, number=fence, into=into)
            return expected(await self._link.ask(request), _OPEN_ANSWERS)

    async def shred(self, key_id: bytes, *, ttl_s: int) -> None:
        """Destroy the key and let no PUT bring it back for so long; may be repeated."""
        request = Request(verb=Verb.SHRED, key_id=key_id, number=ttl_s)
        if await self._link.ask(request) is not Answer.OK:
            raise KeyholderUnavailable("the keyholder has no room for a tombstone")

    async def has(self, key_id: bytes) -> bool:
        """Say whether the key is there, as seen from a second connection."""
        return expected(await self._witness.ask(Request(verb=Verb.HAS, key_id=key_id)), _HAS_ANSWERS)

    async def incarnation(self) -> bytes:
        """Return what the keyholder called itself when the connection was made, without asking again."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return (await self._link.connected()).incarnation
        except (OSError, TimeoutError) as exc:
            raise KeyholderUnavailable from exc

    async def hello(self) -> bytes:
        """Return the incarnation: another one than before proves that every key of the former is gone."""
        told = bytearray(KEY_BYTES)
        answer = await self._link.ask(Request(verb=Verb.HELLO, into=memoryview(told)))
        return expected(answer, {Answer.INCARNATION: bytes(told[:INCARNATION_BYTES])})

    async def stats(self) -> KeyholderStats:
        """Ask how full it is, and how well its memory is kept."""
        figures = bytearray(KEY_BYTES)
        answer = await self._link.ask(Request(verb=Verb.STATS, into=memoryview(figures)))
        try:
            return read_stats(memoryview(expected(answer, {Answer.STATS: figures})))
        except FrameInvalid as exc:
            raise KeyholderUnavailable from exc

    async def aclose(self) -> None:
        """Close both connections."""
        await self._link.aclose()
        await self._witness.aclose()

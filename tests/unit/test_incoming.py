"""A body on its way in: bounded, cut at any moment, encrypted, and never left in a buffer."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from broker.crypto.chunked import CHUNK_BYTES, KEY_BYTES, Decryptor, Encryptor
from broker.errors import (
    InvalidParameter,
    StoreUnavailable,
    UnsupportedImage,
    UploadIncomplete,
    UploadSuperseded,
    UploadTooLarge,
)
from broker.incoming import Body, Incoming
from broker.sameness import Fingerprint
from tests.stack import body_of, upload_bytes

KEY = bytearray(range(KEY_BYTES))
CONTEXT = b"blob"


def body_in(chunks: AsyncIterator[bytes], *, max_bytes: int = 1 << 20, idle_s: float = 5.0) -> Body:
    return Body(chunks, max_bytes=max_bytes, idle_s=idle_s)


def incoming_of(body: Body, *, max_bytes: int = 1 << 20) -> Incoming:
    return Incoming(
        body.chunks(),
        Encryptor(KEY, context=CONTEXT),
        Fingerprint("token"),
        max_bytes=max_bytes,
        check_size=lambda width, height: None,
    )


def incoming(chunks: AsyncIterator[bytes], *, max_bytes: int = 1 << 20, idle_s: float = 5.0) -> Incoming:
    return incoming_of(body_in(chunks, max_bytes=max_bytes, idle_s=idle_s))


async def drained(coming: Incoming) -> bytes:
    return b"".join([part async for part in coming.ciphertext()])


def opened(ciphertext: bytes) -> bytes:
    plain = bytearray(len(ciphertext) + CHUNK_BYTES)
    decryptor = Decryptor(bytearray(KEY), context=CONTEXT)
    with memoryview(plain) as view:
        at = decryptor.update(ciphertext, view)
        at += decryptor.finish(view[at:])
    return bytes(plain[:at])


async def stalled() -> AsyncIterator[bytes]:
    yield upload_bytes(100)
    await asyncio.Event().wait()


@pytest.mark.parametrize("cuts", [1, 7, 63, 64, 65, 1000, 100_000])
async def test_what_went_in_can_be_opened_with_the_key_alone(cuts: int) -> None:
    """The ciphertext opens to the same bytes however the body was cut into chunks, and holds none of it."""
    body = upload_bytes(3_000 if cuts < 100 else 200_000)
    coming = incoming(body_of(*(body[at : at + cuts] for at in range(0, len(body), cuts))))

    ciphertext = await drained(coming)

    assert opened(ciphertext) == body
    assert body[20:40] not in ciphertext
    assert (coming.kind, coming.size_bytes) == ("jpeg", len(body))


async def test_a_body_over_the_limit_is_refused_at_the_limit() -> None:
    """Not a byte is read after the one that was too many."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        yield upload_bytes(64)
        while True:
            read += 100
            yield bytes(100)

    with pytest.raises(UploadTooLarge):
        await drained(incoming(endless(), max_bytes=1000))
    assert read <= 1100


async def test_a_body_exactly_at_the_limit_passes() -> None:
    """The limit is the largest size that is taken."""
    body = upload_bytes(1000)
    assert opened(await drained(incoming(body_of(body), max_bytes=1000))) == body


@pytest.mark.parametrize("body", [b"", b"GIF89a" + bytes(100), b"<svg/>", bytes(64), bytes(5000), b"\xff\xd8"])
async def test_what_is_no_image_is_refused(body: bytes) -> None:
    """Zero bytes, other formats and noise end at the door."""
    with pytest.raises(UnsupportedImage):
        await drained(incoming(body_of(body)))


async def test_no_image_is_refused_before_the_rest_is_read() -> None:
    """Sixty-four bytes decide."""
    with pytest.raises(UnsupportedImage):
        async with asyncio.timeout(1):
            await drained(incoming(chain(bytes(64), stalled())))


async def chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def test_a_body_that_stands_still_is_incomplete() -> None:
    """Whoever sends nothing for the idle time is cut off."""
    with pytest.raises(UploadIncomplete):
        await drained(incoming(stalled(), idle_s=0.05))


async def test_a_client_that_goes_away_is_incomplete() -> None:
    """The server's own exception for it never gets further."""

    async def broken() -> AsyncIterator[bytes]:
        yield upload_bytes(100)
        raise ConnectionResetError

    with pytest.raises(UploadIncomplete):
        await drained(incoming(broken()))


async def test_a_stream_is_cut_while_it_waits() -> None:
    """A later upload does not wait for the earlier one's idle time."""
    body = body_in(stalled())
    reading = asyncio.create_task(drained(incoming_of(body)))
    while body.size_bytes == 0:  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0)

    body.cut(UploadSuperseded())

    with pytest.raises(UploadSuperseded):
        async with asyncio.timeout(1):
            await reading


async def test_a_stream_is_cut_between_two_reads() -> None:
    """A cut that comes while the store writes, and nobody waits for the body, is heard at the next read."""
    body = body_in(stalled())
    chunks = body.chunks()
    assert await anext(chunks)

    body.cut(UploadSuperseded())
    body.cut(UploadSuperseded())

    with pytest.raises(UploadSuperseded):
        await anext(chunks)


async def test_a_cut_says_why() -> None:
    """A process that may hold nothing any more does not blame a later upload."""
    body = body_in(stalled())
    body.cut(StoreUnavailable())

    with pytest.raises(StoreUnavailable):
        await drained(incoming_of(body))


async def test_a_finished_stream_may_still_be_cut() -> None:
    """The word may come late; it must not break its bearer."""
    body = body_in(body_of(upload_bytes(100)))
    await drained(incoming_of(body))

    body.cut(UploadSuperseded())


async def test_a_cut_ends_other_waiting_too() -> None:
    """Whoever holds plaintext waits for no store that is away; what he began goes on without him."""
    body, began, done = body_in(stalled()), asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        began.set()
        await go_on.wait()
        done.set()

    go_on = asyncio.Event()
    waiting = asyncio.create_task(body.unless_cut(slow()))
    await began.wait()
    body.cut(StoreUnavailable())
    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(1):
            await waiting
    go_on.set()
    async with asyncio.timeout(1):
        await done.wait()
    with pytest.raises(StoreUnavailable):
        await body.unless_cut(asyncio.Event().wait())


async def test_what_is_waited_for_answers() -> None:
    """Without a cut its result, or its own error, comes back."""

    async def answering(answer: int) -> int:
        if answer < 0:
            raise UploadSuperseded
        return answer

    body = body_in(stalled())
    assert await body.unless_cut(answering(7)) == 7
    with pytest.raises(UploadSuperseded):
        await body.unless_cut(answering(-1))


async def test_a_picture_has_a_limit_of_its_own() -> None:
    """A body may hold several pictures, each of which is bounded by itself."""
    with pytest.raises(UploadTooLarge):
        await drained(incoming_of(body_in(body_of(upload_bytes(1001))), max_bytes=1000))
    assert await drained(incoming_of(body_in(body_of(upload_bytes(1000))), max_bytes=1000))


async def test_a_refusal_by_size_ends_the_stream() -> None:
    """What the header tells is asked once, and its refusal is what the caller learns."""
    asked: list[tuple[int, int]] = []

    def check(width: int, height: int) -> None:
        asked.append((width, height))
        raise InvalidParameter

    png = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (640).to_bytes(4) + (480).to_bytes(4) + bytes(80_000)
    coming = Incoming(
        body_of(png),
        Encryptor(KEY, context=CONTEXT),
        Fingerprint("token"),
        max_bytes=1 << 20,
        check_size=check,
    )
    with pytest.raises(InvalidParameter):
        await drained(coming)
    assert asked == [(640, 480)]
    assert isinstance(coming.failure, InvalidParameter)


async def test_nothing_of_the_body_stays_in_a_buffer() -> None:
    """Once the stream has ended, however, its own buffers hold no byte of it."""
    body = upload_bytes(3_000)
    for chunks in (body_of(body), chain(body, stalled())):
        coming = incoming(chunks, idle_s=0.05)
        with suppress(UploadIncomplete):
            await drained(coming)
        buffers = [found for found in gc.get_referents(coming, *gc.get_referents(coming)) if type(found) is bytearray]
        assert buffers
        assert not any(body[20:40] in buffer for buffer in buffers)

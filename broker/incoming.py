"""What is on its way in: counted, sniffed, fingerprinted, encrypted while it is read; never whole, never on a disk."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from broker.crypto.chunked import Encryptor
from broker.errors import BrokerError, UnsupportedImage, UploadIncomplete, UploadTooLarge
from broker.sameness import Fingerprint
from broker.secret_memory import wipe
from broker.sniff import HEAD_BYTES, ImageKind, dimensions, sniff

SNIFF_BYTES = 64

CheckSize = Callable[[int, int], None]
"""Called once with width and height, as far as the header tells them; raises to refuse."""

Picture = AsyncIterator[bytes]
T = TypeVar("T")


class Body:
    """A request's body as it arrives: counted, bounded, never still for long, and cut when told to."""

    def __init__(self, chunks: AsyncIterator[bytes], *, max_bytes: int, idle_s: float) -> None:
        self._arriving = chunks
        self.max_bytes = max_bytes
        self._idle_s = idle_s
        self._cut: BrokerError | None = None
        self._waiting: asyncio.Timeout | None = None
        self._beside: set[object] = set()
        self.size_bytes = 0

    def cut(self, reason: BrokerError) -> None:
        """End the stream with this error, now if it waits, else when it is next read; the first reason counts."""
        self._cut = self._cut or reason
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(0)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield what arrives; raise UploadTooLarge, UploadIncomplete when it stops early, or why it was cut."""
        while chunk := await self._next():
            self.size_bytes += len(chunk)
            if self.size_bytes > self.max_bytes:
                raise UploadTooLarge(f"the body is larger than {self.max_bytes} bytes")
            yield chunk

    async def unless_cut(self, doing: Awaitable[T]) -> T:
        """Wait for something else than the body; a cut ends the waiting, and what was begun goes on by itself."""
        task = asyncio.ensure_future(doing)
        self._beside.add(task)
        task.add_done_callback(self._ended_beside)
        try:
            async with asyncio.timeout(0 if self._cut else None) as self._waiting:
                return await asyncio.shield(task)
        except TimeoutError as exc:
            if self._cut is None:
                raise
            raise self._cut from exc
        finally:
            self._waiting = None

    def _ended_beside(self, task: asyncio.Future[Any]) -> None:
        self._beside.discard(task)
        if not task.cancelled():
            task.exception()  # seen here where nobody waits any more

    async def _next(self) -> bytes:
        """Return the next bytes; none at the end."""
        while True:
            if self._cut is not None:
                raise self._cut
            try:
                async with asyncio.timeout(self._idle_s) as self._waiting:
                    chunk = await anext(self._arriving)
            except StopAsyncIteration:
                return b""
            except TimeoutError as exc:
                raise (self._cut or UploadIncomplete()) from exc
            except BrokerError:
                raise
            except Exception as exc:
                # The server's own words for a client that went away; there is nobody left to read an answer.
                raise UploadIncomplete from exc
            finally:
                self._waiting = None  # what has ended cannot be rescheduled
            if chunk:
                return chunk


class Delivery:
    """The pictures of one request, one after the other, out of one body."""

    def __init__(self, body: Body, pictures: AsyncIterator[Picture] | None) -> None:
        self.body = body
        self.has_pictures = pictures is not None
        self.pictures = pictures or _none()


def alone(body: Body) -> Delivery:
    """Deliver a body that is one picture."""
    return Delivery(body, _one(body.chunks()))


class Incoming:
    """Turns a picture into ciphertext, chunk by chunk."""

    def __init__(
        self,
        chunks: Picture,
        encryptor: Encryptor,
        fingerprint: Fingerprint,
        *,
        max_bytes: int,
        check_size: CheckSize,
    ) -> None:
        self._chunks = chunks
        self._encryptor = encryptor
        self._fingerprint = fingerprint
        self._max_bytes = max_bytes
        self._check_size = check_size
        self._head = bytearray()
        self._is_measured = False
        self.size_bytes = 0
        self.kind: ImageKind | None = None
        self.failure: Exception | None = None

    async def ciphertext(self) -> AsyncGenerator[bytes, None]:
        """Yield the ciphertext; what goes wrong is kept in `failure`, as the blob store rewords what it is thrown."""
        try:
            async for chunk in self._chunks:
                self._take_in(chunk)
                sealed = self._encryptor.update(chunk)
                if sealed:
                    yield sealed
            self._end()
            yield self._encryptor.finish()
        except Exception as exc:
            self.failure = exc
            raise
        finally:
            self.wipe()

    def wipe(self) -> None:
        """Overwrite what is held of the picture."""
        self._encryptor.wipe()
        wipe(self._head)

    def _take_in(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        if self.size_bytes > self._max_bytes:
            raise UploadTooLarge(f"a picture is larger than {self._max_bytes} bytes")
        self._fingerprint.update(chunk)
        if not self._is_measured:
            self._head += chunk[: HEAD_BYTES - len(self._head)]
            if len(self._head) >= SNIFF_BYTES and self.kind is None:
                self._sniff()
            if len(self._head) == HEAD_BYTES:
                self._measure()

    def _sniff(self) -> None:
        self.kind = sniff(bytes(self._head[:SNIFF_BYTES]))
        if self.kind is None:
            raise UnsupportedImage

    def _measure(self) -> None:
        self._is_measured = True
        size = dimensions(bytes(self._head))
        if size is not None:
            self._check_size(*size)
        wipe(self._head)

    def _end(self) -> None:
        if self.kind is None:
            self._sniff()
        if not self._is_measured:
            self._measure()
        self._fingerprint.end_picture()


async def _one(picture: Picture) -> AsyncGenerator[Picture]:
    yield picture


async def _none() -> AsyncGenerator[Picture]:
    return
    yield

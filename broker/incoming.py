"""One body on its way in: counted, sniffed, fingerprinted, encrypted while it is read; never whole, never on a disk."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broker.crypto.chunked import Encryptor
from broker.errors import BrokerError, UnsupportedImage, UploadIncomplete, UploadTooLarge
from broker.secret_memory import wipe
from broker.sniff import HEAD_BYTES, ImageKind, dimensions, sniff

SNIFF_BYTES = 64

CheckSize = Callable[[int, int], None]
"""Called once with width and height, as far as the header tells them; raises to refuse."""


class Fingerprint:
    """Sameness of a repeated upload: HMAC-SHA256(HKDF(bearer token, "lethe/fingerprint/v1"), body ‖ parameters)."""

    def __init__(self, token: str) -> None:
        key = HKDF(hashes.SHA256(), 32, salt=None, info=b"lethe/fingerprint/v1").derive(token.encode())
        self._mac = hmac.new(key, digestmod=hashlib.sha256)

    def update(self, chunk: bytes) -> None:
        """Take in the next part of the body."""
        self._mac.update(chunk)

    def finish(self, operation: str, parameters: dict[str, str | int]) -> bytes:
        """Return 32 bytes that are the same for the same user, body, operation and parameters alone."""
        self._mac.update(msgspec.json.encode([operation, sorted(parameters.items())]))
        return self._mac.digest()

    def matches(self, known: bytes, operation: str, parameters: dict[str, str | int]) -> bool:
        """Finish, and compare in constant time."""
        return hmac.compare_digest(self.finish(operation, parameters), known)


class Body:
    """A body as it arrives: counted, bounded, never still for long, and cut when told to."""

    def __init__(self, chunks: AsyncIterator[bytes], *, max_bytes: int, idle_s: float) -> None:
        self._arriving = chunks
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._cut: BrokerError | None = None
        self._waiting: asyncio.Timeout | None = None
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
            if self.size_bytes > self._max_bytes:
                raise UploadTooLarge(f"the body is larger than {self._max_bytes} bytes")
            yield chunk

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


class Incoming:
    """Turns a body into ciphertext, chunk by chunk."""

    def __init__(self, body: Body, encryptor: Encryptor, fingerprint: Fingerprint, *, check_size: CheckSize) -> None:
        self.body = body
        self._encryptor = encryptor
        self._fingerprint = fingerprint
        self._check_size = check_size
        self._head = bytearray()
        self._is_measured = False
        self.kind: ImageKind | None = None
        self.failure: Exception | None = None

    async def ciphertext(self) -> AsyncGenerator[bytes, None]:
        """Yield the ciphertext; what goes wrong is kept in `failure`, as the blob store rewords what it is thrown."""
        try:
            async for chunk in self.body.chunks():
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

    def finish(self, operation: str, parameters: dict[str, str | int]) -> bytes:
        """Return the fingerprint of the whole upload."""
        return self._fingerprint.finish(operation, parameters)

    def wipe(self) -> None:
        """Overwrite what is held of the body."""
        self._encryptor.wipe()
        wipe(self._head)

    def _take_in(self, chunk: bytes) -> None:
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

"""Sends outputs: opened piece by piece while their owner is being answered, and only then; sealed ones as they lie."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import NoReturn

import msgspec
import structlog
from litestar.types import Receive, Scope, Send

from broker.api.ranges import Span
from broker.crypto.chunked import HEADER_BYTES, KEY_BYTES, RangeDecryptor, ciphertext_bytes, ciphertext_range
from broker.errors import JobSettling, OutputGone, OutputLost, OutputNotFound, Unavailable
from broker.jobs import Job, Output
from broker.secret_memory import wipe
from broker.services import Services
from broker.store.keys import OpenAnswer
from policies.base import Facts

log = structlog.get_logger()

PIECE_BYTES = 256 * 1024

STALLED_S = 30.0

Headers = dict[str, str]


class Disclosures:
    """The answers in flight that hold plaintext; when the lease is unsafe they are cut."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    @asynccontextmanager
    async def one_more(self) -> AsyncGenerator[None]:
        """Count the running task while it holds plaintext."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    def cut(self) -> None:
        """End every answer."""
        for task in self._tasks:
            task.cancel()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent of an output: a span of it or of its ciphertext, under which headers, or these alone."""

    job: Job
    output: Output
    span: Span
    headers: Headers
    is_head: bool
    is_delivery: bool
    """Whether its user has the output once this was sent to its end."""

    @property
    def what(self) -> str:
        """What is sent, as the audit record says it."""
        part = " part" if self.span.length < self.span.size_bytes else ""
        return f"{'output' if self.is_delivery else 'thumbnail'} {self.output.n}{part}"


class OutputResponse:
    """Sends one span of one output; the key is opened and wiped within the call."""

    def __init__(self, services: Services, disclosures: Disclosures, answer: Answer) -> None:
        self._services = services
        self._disclosures = disclosures
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; whatever fails before the first piece is a problem, afterwards the connection breaks."""
        del scope
        if self._answer.is_head:
            await self._start(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await self._services.stores.audit.output_served(self._answer.job.id, self._answer.what)
            with self._services.lease.hold():
                async with self._disclosures.one_more(), self._opened() as pieces:
                    await self._send(pieces, send, gone)
        finally:
            gone.cancel()

    async def _send(self, pieces: AsyncGenerator[bytes, None], send: Send, gone: asyncio.Task[None]) -> None:
        span = self._answer.span
        left = span.length
        is_started = False
        async for piece in pieces:
            if not is_started:
                await self._start(send)
                is_started = True
            if gone.done():
                return
            left -= len(piece)
            async with asyncio.timeout(STALLED_S):
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
        if left == 0 and span.stop == span.size_bytes and self._answer.is_delivery:
            await self._delivered()

    async def _delivered(self) -> None:
        """Begin the grace time of an output that was sent to its end; whether it arrived only the phone knows."""
        job, n = self._answer.job, self._answer.output.n
        grace_s = self._services.policies.retain(Facts(operation=job.operation)).grace_s
        if grace_s is None:
            return
        try:
            await self._services.stores.outputs.delivered(job.id, n, grace_s=grace_s)
        except Unavailable:
            log.warning("delivery_unnoted", job_id=str(job.id))  # its time ends it, or the next download

    async def _start(self, send: Send) -> None:
        span = self._answer.span
        is_part = span.length < span.size_bytes
        headers = {**self._answer.headers, "Content-Length": str(span.length)}
        if is_part:
            headers["Content-Range"] = span.content_range
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 206 if is_part else 200, "headers": encoded})

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[AsyncGenerator[bytes, None]]:
        decryptor = await open_output(self._services, self._answer.job, self._answer.output)
        try:
            async with aclosing(_pieces(self._services, self._answer, decryptor)) as pieces:
                yield pieces
        finally:
            decryptor.wipe()


class SealedResponse(OutputResponse):
    """Sends one span of ciphertext, as it lies in the blob store: we could not open it."""

    def __init__(self, services: Services, disclosures: Disclosures, answer: Answer, *, blob: str) -> None:
        super().__init__(services, disclosures, answer)
        self._blob = blob

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[AsyncGenerator[bytes, None]]:
        answer, span = self._answer, self._answer.span
        read = _read(self._services, answer.job, answer.output, self._blob, start=span.start, stop=span.stop)
        async with aclosing(read) as pieces:
            yield pieces


async def open_output(services: Services, job: Job, output: Output) -> RangeDecryptor:
    """Open an output for reading; raise OutputLost when nobody can any more, and OutputGone when it was destroyed."""
    keyholder = services.stores.keys.at(output.keyholder)
    key = bytearray(KEY_BYTES)
    try:
        is_same = await keyholder.hello() == output.incarnation
        if not is_same or await keyholder.open_into(output.key_id, key, fence=job.fence) is not OpenAnswer.OK:
            await _lose(services, job, output.n)
        return RangeDecryptor(
            key,
            context=output.blob.encode(),
            header=await _header(services, job, output),
            ciphertext_length=ciphertext_bytes(output.size_bytes),
        )
    finally:
        wipe(key)


async def servable(services: Services, job: Job, n: int) -> Output:
    """Return an output that is served; raise JobSettling, OutputNotFound or OutputGone."""
    if not job.is_final:
        raise JobSettling("the job is not final yet; its outputs are served once its upload is gone", retry_after_s=1)
    outputs = await services.stores.custody.outputs(job.id)
    output = next((output for output in outputs if output.n == n), None)
    if output is None:
        raise OutputNotFound
    if output.is_gone:
        raise OutputGone
    return output


async def _lose(services: Services, job: Job, n: int) -> NoReturn:
    await servable(services, job, n)  # a DELETE may have been faster
    await services.stores.custody.output_lost(job.id, n)
    raise OutputLost


async def _read(
    services: Services, job: Job, output: Output, blob: str, *, start: int, stop: int
) -> AsyncGenerator[bytes, None]:
    try:
        async for piece in services.stores.blobs.read(blob, start=start, stop=stop):
            yield piece
    except FileNotFoundError:
        if blob != output.thumbnail:
            await _lose(services, job, output.n)
        await servable(services, job, output.n)
        raise OutputNotFound("this output has no thumbnail") from None


async def _header(services: Services, job: Job, output: Output) -> bytes:
    header = bytearray()
    async for chunk in _read(services, job, output, output.blob, start=0, stop=HEADER_BYTES):
        header += chunk
    return bytes(header)


async def _pieces(services: Services, answer: Answer, decryptor: RangeDecryptor) -> AsyncGenerator[bytes, None]:
    output, span = answer.output, answer.span
    length = ciphertext_bytes(output.size_bytes)
    begin, end = ciphertext_range(span.start, span.stop, length)
    plain = memoryview(bytearray(PIECE_BYTES))
    sealed = bytearray()
    at = span.start
    try:
        async for chunk in _read(services, answer.job, output, output.blob, start=begin, stop=end):
            sealed += chunk
            while at < span.stop:
                stop = min(span.stop, (at // PIECE_BYTES + 1) * PIECE_BYTES)
                first, last = ciphertext_range(at, stop, length)
                if len(sealed) < last - first:
                    break
                with memoryview(sealed) as held:
                    decryptor.open_into(held[: last - first], plain, start=at, stop=stop)
                del sealed[: last - first]
                yield bytes(plain[: stop - at])
                at = stop
    finally:
        wipe(plain)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

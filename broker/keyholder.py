"""The keyholder: one small process, memory only, and the only place where keys exist. It writes no file."""

import asyncio
import fcntl
import os
import signal
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

import click
import msgspec
import structlog

from broker.frames import (
    FRAME_BYTES,
    INCARNATION_BYTES,
    KEY_BYTES,
    Answer,
    FrameInvalid,
    Head,
    Memory,
    Verb,
    body,
    read_head,
    write_head,
    write_stats,
)
from broker.hardening import observed
from broker.keytable import KeyTable
from broker.log import configure_log, report_crashes
from broker.secret_memory import SecretPages, harden, heap_is_perturbed, wipe

DEFAULT_MAX_TTL_S: Final = 7 * 24 * 3600
DEFAULT_CAPACITY: Final = 131_072  # four MiB of keys, half of what an ordinary user may lock
TOMBSTONES_PER_KEY: Final = 16

_SWEEP_EVERY_S = 0.5
_BATCH_BYTES = 128 * FRAME_BYTES
_SEND_BUFFER_BYTES = 1024 * 1024

log = structlog.get_logger()


class KeyholderRunning(Exception):
    """Another keyholder that is still alive serves this socket."""


class KeyService:
    """Turns one request frame into one answer frame; knows nothing of connections."""

    def __init__(self, table: KeyTable, *, incarnation: bytes) -> None:
        self._table = table
        self._incarnation = incarnation

    def answer(self, request: memoryview, reply: memoryview) -> None:
        """Write the answer; raise FrameInvalid for what is no request."""
        head = read_head(request)
        write_head(reply, self._reply(head, body(request), body(reply)), key_id=head.key_id)

    def _reply(self, head: Head, given: memoryview, out: memoryview) -> Answer:
        match head.code:
            case Verb.PUT if head.number:
                return self._table.put(head.key_id, given, ttl_s=head.number)
            case Verb.OPEN:
                return self._table.open_into(head.key_id, out, fence=head.number)
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = cast("socket.socket", transport.get_extra_info("socket"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._open_connections.add(self)

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
                self._service.answer(self._received[at:end], self._replies[at:end])
            self._send(self._replies[:whole])
        finally:
            wipe(self._replies[:whole])

    def _send(self, replies: memoryview) -> None:
        # Past the transport, which would copy what it cannot send at once. A client that does not read is cut off.
        if not replies or self._transport is None:
            return
        sock = cast("socket.socket", self._transport.get_extra_info("socket"))
        try:
            sent = os.write(sock.fileno(), replies)
        except OSError:
            sent = 0
        if sent < len(replies):
            self.abort()

    def _move_to_front(self, whole: int) -> None:
        rest = self._received_bytes - whole
        self._received[:rest] = self._received[whole : self._received_bytes]
        wipe(self._received[rest : self._received_bytes])
        self._received_bytes = rest


@contextmanager
def _sole_listener(socket_path: Path) -> Generator[socket.socket]:
    """Listen there, for the owner only; a socket file whose keyholder is dead is replaced, one that is alive is not."""
    lock = os.open(f"{socket_path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KeyholderRunning(str(socket_path)) from None
        socket_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(socket_path))
            # Nobody can connect before listen(), so there is no moment at which others could.
            socket_path.chmod(0o600)
            yield listener
        socket_path.unlink(missing_ok=True)
    finally:
        os.close(lock)


async def serve(
    socket_path: str,
    *,
    max_ttl_s: int,
    capacity: int,
    memory: Sequence[Memory] = tuple(Memory),
    stop: asyncio.Event | None = None,
) -> None:
    """Hold keys until `stop` is set or a signal says so, then overwrite them all."""
    stop = stop or _stop_on_signal()
    pages = SecretPages(capacity * KEY_BYTES, kinds=memory)
    table = KeyTable(pages, max_ttl_s=max_ttl_s, max_tombstones=TOMBSTONES_PER_KEY * capacity)
    service = KeyService(table, incarnation=os.urandom(INCARNATION_BYTES))
    connections: set[Connection] = set()
    try:
        with _sole_listener(Path(socket_path)) as listener:
            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(lambda: Connection(service, connections), sock=listener)
            stats = table.stats()
            log.info("keyholder_started", memory=stats.memory, capacity=stats.capacity, perturbed=heap_is_perturbed())
            await _sweep_until(stop, table)
            server.close()
            for connection in list(connections):
                connection.abort()
        log.info("keyholder_stopped", count=table.stats().held)
    finally:
        pages.close()


async def _sweep_until(stop: asyncio.Event, table: KeyTable) -> None:
    while not stop.is_set():
        if ended := table.sweep():
            log.info("keyholder_keys_ended", count=ended)
        try:
            async with asyncio.timeout(_SWEEP_EVERY_S):
                await stop.wait()
        except TimeoutError:
            continue


def _stop_on_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def main(
    socket_path: str,
    *,
    max_ttl_s: int = DEFAULT_MAX_TTL_S,
    capacity: int = DEFAULT_CAPACITY,
    memory: Sequence[Memory] = tuple(Memory),
) -> None:
    """Be a keyholder until SIGTERM."""
    harden()
    configure_log()
    report_crashes()
    try:
        asyncio.run(serve(socket_path, max_ttl_s=max_ttl_s, capacity=capacity, memory=memory))
    except KeyholderRunning as exc:
        raise SystemExit(f"another keyholder serves {exc}") from None


@click.command()
@click.option("--socket", "socket_path", required=True, help="Where clients connect.")
@click.option("--max-ttl-s", default=DEFAULT_MAX_TTL_S, show_default=True, help="No key lives longer.")
@click.option("--capacity", default=DEFAULT_CAPACITY, show_default=True, help="How many keys at most.")
@click.option("--memory", type=click.Choice([kind.value for kind in Memory]), help="Use this kind of memory or fail.")
def _command(socket_path: str, max_ttl_s: int, capacity: int, memory: str | None) -> None:
    kinds = (Memory(memory),) if memory else tuple(Memory)
    main(socket_path, max_ttl_s=max_ttl_s, capacity=capacity, memory=kinds)


if __name__ == "__main__":
    _command()

"""The keyholder: one small process, memory only, and the only place where keys exist. It writes no file."""

import asyncio
import fcntl
import os
import signal
import socket
import struct
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import click
import structlog

from broker.frames import INCARNATION_BYTES, KEY_BYTES, Memory
from broker.keyservice import Connection, KeyService
from broker.keytable import KeyTable
from broker.log import configure_log, report_crashes
from broker.secret_memory import SecretPages, harden, heap_is_perturbed
from broker.wire import HANDSHAKE_WITHIN_S, TlsFiles, host_and_port, server_context

DEFAULT_MAX_TTL_S: Final = 7 * 24 * 3600
DEFAULT_CAPACITY: Final = 131_072  # four MiB of keys, half of what an ordinary user may lock
TOMBSTONES_PER_KEY: Final = 16
DRAIN: Final = signal.SIGUSR1

_SWEEP_EVERY_S = 0.5
_PEER = struct.Struct("3i")  # what SO_PEERCRED tells: process, user, group

log = structlog.get_logger()


class KeyholderRunning(Exception):
    """Another keyholder that is still alive serves this socket."""


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


class Listening:
    """Where clients reach one keyholder: a unix socket, an address with TLS, or both."""

    def __init__(self, socket_path: str = "", *, address: str = "", files: TlsFiles | None = None) -> None:
        if not socket_path and not address:
            raise ValueError("a keyholder listens somewhere")
        self._socket_path = socket_path
        self._address = address
        self._context = server_context(files) if files else None
        if address and self._context is None:
            raise ValueError("between machines a keyholder speaks TLS alone")

    @asynccontextmanager
    async def serving(self, service: KeyService) -> AsyncGenerator[None]:
        """Answer everybody inside the block; whoever is still connected at its end is cut off."""
        loop, connections = asyncio.get_running_loop(), set[Connection]()

        def connect() -> Connection:
            return Connection(service, connections)

        async with AsyncExitStack() as exits:
            if self._socket_path:
                listener = exits.enter_context(_sole_listener(Path(self._socket_path)))
                exits.callback((await loop.create_unix_server(connect, sock=listener)).close)
            if self._address:
                host, port = host_and_port(self._address)
                within_s = HANDSHAKE_WITHIN_S
                server = await loop.create_server(
                    connect, host, port, ssl=self._context, ssl_handshake_timeout=within_s
                )
                exits.callback(server.close)
            yield
            for connection in list(connections):
                connection.abort()


async def serve(
    listening: Listening,
    *,
    max_ttl_s: int,
    capacity: int,
    memory: Sequence[Memory] = tuple(Memory),
    stop: asyncio.Event | None = None,
) -> None:
    """Hold keys until `stop` is set or a signal says so, then overwrite them all; the drain signal waits for them."""
    stop = stop or _stop_on_signal()
    pages = SecretPages(capacity * KEY_BYTES, kinds=memory)
    table = KeyTable(pages, max_ttl_s=max_ttl_s, max_tombstones=TOMBSTONES_PER_KEY * capacity)
    service = KeyService(table, incarnation=os.urandom(INCARNATION_BYTES))
    asyncio.get_running_loop().add_signal_handler(DRAIN, _drain, service)
    try:
        async with listening.serving(service):
            stats = table.stats()
            log.info("keyholder_started", memory=stats.memory, capacity=stats.capacity, perturbed=heap_is_perturbed())
            await _sweep_until(stop, table, service)
        log.info("keyholder_stopped", count=table.stats().held)
    finally:
        pages.close()


def drain(socket_path: str) -> None:
    """Tell the keyholder that serves a unix socket to take no new keys, and to end when none is left."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(socket_path)
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    os.kill(_PEER.unpack(told)[0], DRAIN)


def _drain(service: KeyService) -> None:
    service.is_draining = True
    log.info("keyholder_draining")


async def _sweep_until(stop: asyncio.Event, table: KeyTable, service: KeyService) -> None:
    while not stop.is_set() and not (service.is_draining and table.is_empty):
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


@click.command()
@click.option("--socket", "socket_path", default="", help="Where clients of this machine connect.")
@click.option("--listen", "address", default="", help="Where clients of other machines connect: host:port.")
@click.option("--ca-file", default="", help="Who signs certificates here (PEM).")
@click.option("--certificate-file", default="", help="Our own certificate (PEM).")
@click.option("--key-file", default="", help="Its key (PEM).")
@click.option("--max-ttl-s", default=DEFAULT_MAX_TTL_S, show_default=True, help="No key lives longer.")
@click.option("--capacity", default=DEFAULT_CAPACITY, show_default=True, help="How many keys at most.")
@click.option("--memory", type=click.Choice([kind.value for kind in Memory]), help="Use this kind of memory or fail.")
def main(
    *,
    socket_path: str,
    address: str,
    ca_file: str,
    certificate_file: str,
    key_file: str,
    max_ttl_s: int,
    capacity: int,
    memory: str | None,
) -> None:
    """Be a keyholder until SIGTERM, or until SIGUSR1 was given and nothing is left."""
    harden()
    configure_log()
    report_crashes()
    files = TlsFiles(ca_file, certificate_file, key_file) if ca_file else None
    kinds = (Memory(memory),) if memory else tuple(Memory)
    try:
        listening = Listening(socket_path, address=address, files=files)
    except (OSError, ValueError) as exc:
        raise SystemExit(f"the keyholder cannot start: {exc}") from None
    try:
        asyncio.run(serve(listening, max_ttl_s=max_ttl_s, capacity=capacity, memory=kinds))
    except KeyholderRunning as exc:
        raise SystemExit(f"another keyholder serves {exc}") from None


if __name__ == "__main__":
    main()

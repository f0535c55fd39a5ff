"""A tap in the line to Postgres: passes everything on, and counts the statements that clients send."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from broker.embedded import Embedded
from broker.embedded_postgres import SOCKET_NAME

PIECE_BYTES = 65_536
EXECUTE, QUERY = ord("E"), ord("Q")


class Counts(msgspec.Struct, kw_only=True):
    """What has passed so far."""

    statements: int = 0


class Tap(msgspec.Struct, frozen=True, kw_only=True):
    """Where clients connect to, and what they have sent."""

    dsn: str
    counts: Counts


@asynccontextmanager
async def postgres_tap(embedded: Embedded) -> AsyncGenerator[Tap]:
    """Serve a second socket that leads to the same Postgres."""
    host = Path(embedded.postgres_dsn.partition("host=")[2])
    folder = embedded.run_directory / "tap"
    folder.mkdir(mode=0o700)
    counts = Counts()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_unix_connection(str(host / SOCKET_NAME))
        with suppress(OSError, asyncio.IncompleteReadError):
            await asyncio.gather(_count_on(reader, there[1], counts), _pass_on(there[0], writer))
        writer.close()

    server = await asyncio.start_unix_server(serve, str(folder / SOCKET_NAME))
    try:
        yield Tap(dsn=embedded.postgres_dsn.replace(str(host), str(folder)), counts=counts)
    finally:
        server.close()


async def _count_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counts: Counts) -> None:
    """Pass on what a client sends: first a message without a kind, then kind, length and content."""
    try:
        size = await reader.readexactly(4)
        writer.write(size + await reader.readexactly(int.from_bytes(size) - 4))
        while True:
            head = await reader.readexactly(5)
            writer.write(head + await reader.readexactly(int.from_bytes(head[1:]) - 4))
            counts.statements += head[0] in (EXECUTE, QUERY)
    finally:
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(PIECE_BYTES):
            writer.write(data)
    finally:
        writer.close()

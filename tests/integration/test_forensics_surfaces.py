"""Surfaces of `lethe forensics` by themselves: a leak is found in every encoding, and what cannot be read is said."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.forensics.encodings import Encoding
from broker.forensics.findings import SurfaceFindings
from broker.forensics.inspection import Inspection
from broker.forensics.loopback import Loopback
from broker.forensics.markers import Family
from broker.forensics.metrics import Metrics
from broker.forensics.network import own_network
from broker.forensics.processes import DeletedFiles, Memory, descendants
from broker.forensics.search import Quarry
from broker.forensics.stores import PostgresRows, RedisHeap, RedisValues
from broker.forensics.surfaces import Files, Surface
from broker.settings import Settings
from tests.process_memory import needs_root

ROOT = Path(__file__).parents[2]


async def controlled(*surfaces: Surface) -> dict[str, SurfaceFindings]:
    inspection = Inspection(surfaces, watch=lambda _: None)
    try:
        for surface in surfaces:
            await surface.begin()
        await inspection.before()
        await inspection.control()
    finally:
        for surface in surfaces:
            await surface.end()
    return inspection.findings


def faults(findings: dict[str, SurfaceFindings]) -> dict[str, tuple[str, Sequence[str]]]:
    return {
        name: (found.not_scanned, found.missed)
        for name, found in findings.items()
        if found.not_scanned or found.control_found != len(Encoding)
    }


@asynccontextmanager
async def figures() -> AsyncGenerator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nup 1")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_leak_in_files_metrics_and_stores_is_found(settings: Settings, tmp_path: Path) -> None:
    """Files, a log, figures, Redis' values and Postgres' rows: each planted leak is found, and taken away again."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "logs").mkdir()
    async with figures() as url:

        async def urls() -> list[str]:
            return [url]

        findings = await controlled(
            Files("blobs", tmp_path / "blobs"),
            Files("logs", tmp_path / "logs", log="broker.log"),
            Metrics("metrics", urls),
            RedisValues("Redis values", lambda: settings.redis_url),
            PostgresRows("Postgres rows", lambda: settings.postgres_dsn),
        )
    assert not faults(findings)
    assert list((tmp_path / "blobs").iterdir()) == []


@needs_root
async def test_a_leak_in_memory_and_on_the_wire_is_found(settings: Settings) -> None:
    """A hardened process's heap, a file without a name, Redis' heap and packets: each planted leak is found."""

    def ours() -> set[int]:
        return descendants(os.getpid())

    def redis() -> list[int]:
        return [pid for pid in ours() if b"redis" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    findings = await controlled(
        Memory("memory", lambda: ours() - set(redis())),
        DeletedFiles("deleted files", ours),
        RedisHeap("Redis heap", redis, lambda: settings.redis_url),
        Loopback("loopback"),
    )
    assert not faults(findings)
    assert findings["memory"].parts > 1
    assert findings["Redis heap"].parts == 1


@needs_root
async def test_what_passes_over_a_connection_in_pieces_is_put_together() -> None:
    """A marker that TCP carries in two segments is found once, over IPv4 and IPv6."""
    family, loopback = Family(), Loopback("loopback")
    marker = family.marker("it")
    await loopback.begin()
    try:
        for host in ("127.0.0.1", "::1"):
            family_of = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.create_server((host, 0), family=family_of) as server:
                port = server.getsockname()[1]
                with socket.create_connection((host, port)) as mouth, server.accept()[0] as ear:
                    for piece in (marker[:11], marker[11:]):
                        mouth.sendall(piece)
                        assert await asyncio.to_thread(ear.recv, 100) == piece
            found: Counter[str] = Counter()
            async for part in loopback.parts():
                found.update(one.label for one in Quarry(family).look(part.blocks))
            assert found == {"it": 1}, host
    finally:
        await loopback.end()


@needs_root
async def test_a_network_of_our_own_is_left_again() -> None:
    """Nobody from outside is heard there, what is started inside can talk, and afterwards all is as it was."""
    with socket.create_server(("127.0.0.1", 0)) as outside:
        with own_network() as is_own:
            if not is_own:
                pytest.skip("this root may not make a network")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(outside.getsockname())
            with socket.create_server(("127.0.0.1", 0)) as inside:
                socket.create_connection(inside.getsockname()).close()
        socket.create_connection(outside.getsockname()).close()


async def test_a_surface_that_does_not_answer_is_not_scanned() -> None:
    """A store that is down is not taken for an empty one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        findings = await controlled(
            RedisValues("Redis values", lambda: f"redis://127.0.0.1:{port}"),
            PostgresRows("Postgres rows", lambda: f"postgresql://lethe@127.0.0.1:{port}/lethe"),
        )
    assert all(found.not_scanned for found in findings.values())


WITHOUT_RIGHTS = """
import asyncio, concurrent.futures.thread, json, os, sys
from broker.forensics.inspection import Inspection
from broker.forensics.loopback import Loopback
from broker.forensics.processes import DeletedFiles, Memory

if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)

async def main():
    pids = [int(sys.argv[1])]
    surfaces = [Memory("memory", lambda: pids), DeletedFiles("deleted files", lambda: pids), Loopback("loopback")]
    inspection = Inspection(surfaces, watch=lambda _: None)
    for surface in surfaces:
        await surface.begin()
    await inspection.before()
    print(json.dumps({name: found.not_scanned for name, found in inspection.findings.items()}))

asyncio.run(main())
"""


def test_without_rights_it_is_said_what_was_not_scanned() -> None:
    """An ordinary user cannot look into memory, open files and packets of others: each is `not scanned`, and why."""
    command = [sys.executable, "-c", WITHOUT_RIGHTS, "1"]
    run = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(run.stdout)
    assert told.keys() == {"memory", "deleted files", "loopback"}
    assert all("only root" in why for why in told.values()), told


async def test_a_log_that_is_written_to_after_a_look_is_looked_at_again(tmp_path: Path) -> None:
    """What is known is passed over by its content, not by its name."""
    family, file = Family(), tmp_path / "broker.log"
    file.write_bytes(os.urandom(20_000))
    inspection = Inspection([Files("logs", tmp_path)], watch=lambda _: None)
    await inspection.before()
    with file.open("ab") as log:
        log.write(family.marker("it"))
    await inspection.after(Quarry(family), phase="after")
    await inspection.after(Quarry(family), phase="again")
    assert [(find.what, find.phase) for find in inspection.findings["logs"].after] == [("it", "after"), ("it", "again")]


@pytest.mark.parametrize("name", ["secret.txt", "deep/er/secret.txt", ".hidden"])
async def test_files_are_found_wherever_they_lie(tmp_path: Path, name: str) -> None:
    """Folders and hidden files are no hiding places."""
    family, file = Family(), tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(family.marker("it"))
    inspection = Inspection([Files("files", tmp_path)], watch=lambda _: None)
    await inspection.after(Quarry(family), phase="after")
    assert [find.part for find in inspection.findings["files"].after] == [str(file)]

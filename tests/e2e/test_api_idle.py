"""Thousands of clients that only listen: the broker stays under its budget, and others are served meanwhile."""

import asyncio
import resource
from collections.abc import Generator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.machine import peak_rss_bytes
from broker.services import Services
from broker.settings import Settings
from tests.api_client import Api
from tests.brokers import MEMORY_BYTES, broker_process

CLIENTS = 2_000
AT_ONCE = 16  # as many as Postgres answers side by side


@pytest.fixture
def room() -> Generator[None]:
    """Room for as many connections as there are clients, here and in what we start."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(before[1], 3 * CLIENTS)), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def listening(api: Api, job_id: str, opened: AsyncExitStack) -> asyncio.StreamReader:
    """One client of an event stream that has read what there is; one that is cut off comes again, as phones do."""
    address = urlsplit(api.url)
    head = (
        f"GET /v1/jobs/{job_id}/events HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {api.token}",
        "Connection: close",
    )
    while True:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        opened.callback(writer.close)
        writer.write("\r\n".join([*head, "", ""]).encode())
        with suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"event: job")
            return reader


async def told_the_end(reader: asyncio.StreamReader, api: Api, job_id: str, opened: AsyncExitStack) -> None:
    """Read on; whoever is cut off meanwhile comes again."""
    while b"event: end" not in await reader.read():
        reader = await listening(api, job_id, opened)


async def test_two_thousand_idle_listeners_stay_within_the_budget(
    services: Services, settings: Settings, tmp_path: Path, room: None
) -> None:
    """2,000 event streams on one broker: under 200 MB, another request is answered, and all are told the end."""
    async with broker_process(services, settings, tmp_path) as (process, api), AsyncExitStack() as opened:
        job = await api.queued()
        readers: list[asyncio.StreamReader] = []
        while len(readers) < CLIENTS:
            readers += await asyncio.gather(*(listening(api, job["id"], opened) for _ in range(AT_ONCE)))

        assert peak_rss_bytes(process.child_pid) < MEMORY_BYTES
        async with asyncio.timeout(10):
            assert (await api.get(f"/v1/jobs/{job['id']}")).status_code == 200
        await api.delete(f"/v1/jobs/{job['id']}")
        async with asyncio.timeout(60):
            await asyncio.gather(*(told_the_end(reader, api, job["id"], opened) for reader in readers))
        assert peak_rss_bytes(process.child_pid) < MEMORY_BYTES

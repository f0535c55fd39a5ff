"""Thousands of clients that only listen: the broker stays under its budget, and others are served meanwhile."""

import asyncio
import resource
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from broker.services import Services
from broker.settings import Settings
from tests.api_client import Api
from tests.brokers import address_of
from tests.processes import lethe_process

CLIENTS = 2_000
AT_ONCE = 16  # as many as Postgres answers side by side
BUDGET_BYTES = 200 << 20


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.fixture
def room() -> Generator[None]:
    """Room for as many connections as there are clients, here and in what we start."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(before[1], 3 * CLIENTS)), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@asynccontextmanager
async def listener(api: Api, job_id: str) -> AsyncGenerator[asyncio.StreamReader]:
    """One client of an event stream that has read what there is, and goes on listening."""
    address = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=4_096)
    try:
        writer.write(
            f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n\r\n".encode()
        )
        await reader.readuntil(b"event: job")
        yield reader
    finally:
        writer.close()


async def test_two_thousand_idle_listeners_stay_within_the_budget(
    services: Services, settings: Settings, tmp_path: Path, room: None
) -> None:
    """2,000 event streams on one broker: under 200 MB, another client is served at once, and each stream is alive."""
    patient = msgspec.structs.replace(settings, lease_s=30.0)  # so many connections at once are work
    with lethe_process(["broker"], patient, tmp_path) as process:
        facts = await address_of(services, process)
        async with httpx.AsyncClient(base_url=facts.address, timeout=30) as http, AsyncExitStack() as opened:
            token = (await http.post("/v1/users")).json()["token"]
            api = Api(http, services, url=facts.address, operator_url="", token=token)
            job = await api.queued()
            readers: list[asyncio.StreamReader] = []
            while len(readers) < CLIENTS:
                coming = (opened.enter_async_context(listener(api, job["id"])) for _ in range(AT_ONCE))
                readers += await asyncio.gather(*coming)

            assert resident_bytes(process.child_pid) < BUDGET_BYTES
            async with asyncio.timeout(5):
                assert (await api.get(f"/v1/jobs/{job['id']}")).status_code == 200
            await api.delete(f"/v1/jobs/{job['id']}")
            async with asyncio.timeout(30):
                await asyncio.gather(*(reader.readuntil(b"event: end") for reader in readers))
            assert resident_bytes(process.child_pid) < BUDGET_BYTES

"""All that hostile clients do, to a broker in a process of its own, whose memory stays within its budget meanwhile."""

from contextlib import AsyncExitStack
from pathlib import Path

from bench.machine import peak_rss_bytes
from broker.services import Services
from broker.settings import Settings
from tests.brokers import MEMORY_BYTES, broker_process
from tests.hostile import FLOODS, MEBIBYTE, PUT, connected, odd_requests, request, slow_requests, status_of

SLOW = 300
AGAIN = 150


async def test_hostile_clients_stay_within_the_budget(services: Services, settings: Settings, tmp_path: Path) -> None:
    """Odd requests, then floods of what is no body, and large refused ones, beside three hundred that stand still."""
    async with broker_process(services, settings, tmp_path) as (process, api), AsyncExitStack() as opened:
        for text in odd_requests(api):
            await status_of(api, text)
        job = await api.queued()
        kinds = slow_requests(api, job["id"])
        for number in range(SLOW):
            client = await opened.enter_async_context(connected(api))
            await client.send(kinds[number % len(kinds)])
        for flood in FLOODS.values():
            head, piece = flood(api)
            async with connected(api) as client:
                await client.send(head)
                await client.pour(piece, most_bytes=64 * MEBIBYTE)
        large = request(api, "PUT", PUT, "Content-Length: 60000") + "\r\n" + "a" * 60_000
        before = peak_rss_bytes(process.child_pid)
        for _ in range(AGAIN):
            await status_of(api, large)
            await status_of(api, request(api, "GET", "/v1/jobs?x=" + "9" * 50_000) + "\r\n")
        assert (await api.get(f"/v1/jobs/{job['id']}")).status_code == 200
        assert "request_failed" not in process.log
        assert peak_rss_bytes(process.child_pid) < min(MEMORY_BYTES, before + 24 * MEBIBYTE)

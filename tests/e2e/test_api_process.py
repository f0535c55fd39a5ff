"""The broker as a process of its own, as an operator starts it."""

import asyncio
import signal
import socket
import time
from pathlib import Path
from uuid import uuid4

import pytest

from broker.app import bound, url_of
from broker.services import Services
from broker.settings import Settings, SettingsInvalid
from tests.brokers import broker_process
from tests.stack import upload_bytes


async def test_a_broker_serves_and_stops(services: Services, settings: Settings, tmp_path: Path) -> None:
    """It tells its addresses, takes work in, and stops soon although a stream and a waiting request are open."""
    async with broker_process(services, settings, tmp_path) as (process, api):
        http, headers = api.http, api.auth
        path = f"/v1/jobs/{uuid4()}"
        sent = await http.put(f"{path}?operation=noop", content=upload_bytes(), headers=headers)
        assert sent.status_code == 202
        assert "lethe_jobs" in (await http.get(f"{api.operator_url}/metrics")).text
        waiting = asyncio.create_task(http.get(path, headers={**headers, "Prefer": "wait=20"}))
        streaming = asyncio.create_task(http.get(f"{path}/events", headers=headers))
        await asyncio.sleep(0.2)
        before_s = time.monotonic()
        process.running.send_signal(signal.SIGTERM)
        assert (await waiting).json()["status"] == "queued"
        assert "event: job" in (await streaming).text
        assert await asyncio.to_thread(process.running.wait, 10) == 0
        assert time.monotonic() - before_s < 3
    assert "broker_stopped" in process.log
    assert api.token not in process.log
    assert "127.0.0.1" not in process.log
    assert not [other for other in await services.stores.processes.alive() if other.facts.address == api.url]


async def test_an_upload_in_flight_at_the_end_leaves_nothing(
    services: Services, settings: Settings, tmp_path: Path
) -> None:
    """A broker that is stopped while a body comes in destroys what it has of it."""
    async with broker_process(services, settings, tmp_path) as (process, api):
        http, headers = api.http, api.auth

        async def endless():
            while True:
                yield upload_bytes(3_000)
                await asyncio.sleep(0.05)

        path = f"/v1/jobs/{uuid4()}"
        sending = asyncio.create_task(http.put(f"{path}?operation=noop", content=endless(), headers=headers))
        while (await http.get(path, headers=headers)).status_code == 404:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.02)
        process.running.send_signal(signal.SIGTERM)
        await asyncio.gather(sending, return_exceptions=True)
        assert await asyncio.to_thread(process.running.wait, 15) == 0, process.log
    assert await services.stores.jobs.uploads_alive() == (0, 0.0)
    assert not [path for path in (tmp_path / "blobs").iterdir() if path.is_file()]


def test_an_address_needs_a_port() -> None:
    """A listen address that is none stops the start and names the variable."""
    with bound("127.0.0.1:0") as listener:
        assert url_of(listener).startswith("http://127.0.0.1:")
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)  # else answers wait for delayed ACKs
    for wrong in ("8080", "127.0.0.1", ":8080", "127.0.0.1:http"):
        with pytest.raises(SettingsInvalid, match="LETHE_LISTEN"), bound(wrong):
            pass

"""A user with a thousand jobs and as many outputs: what erasure and export cost, and a broker killed in the middle."""

import asyncio
import sys
import time
import tracemalloc
from pathlib import Path

import httpx
import pytest

from bench.machine import peak_rss_bytes
from broker.export import export
from broker.rights import RequestStatus, Right
from broker.services import Services
from broker.settings import Settings
from tests.brokers import broker_process
from tests.erasing import FIGURE, completed, crowd, minted
from tests.lifecycle import blobs, count, eventually, keys_held


async def test_a_thousand_jobs_are_exported_and_erased_in_seconds(services: Services, settings: Settings) -> None:
    """Export in 5 s and 100 MB, erasure of 1,000 jobs with 1,000 outputs in 10 s; receipts come back, nothing stays."""
    user, keys = await minted(services), await keys_held(services)
    await crowd(services, user, settings)

    held = await services.stores.held.user(user.user_id)
    assert held is not None
    request = await services.stores.requests.add(user.user_id, Right.ACCESS, answer_within_days=30)
    began_s, size, tail = time.monotonic(), 0, b""
    async for piece in export(services.stores.held, held, request):
        size, tail = size + len(piece), piece
    export_s = time.monotonic() - began_s
    assert tail.endswith(b'"is_complete":true}\n')

    tracemalloc.start()
    async for _ in export(services.stores.held, held, request):
        pass
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    began_s = time.monotonic()
    erased = await services.erasure.ask(user.token, user.user_id)
    erasure_s = time.monotonic() - began_s
    sys.stdout.write(f"export {export_s:.2f} s, {size} bytes, peak {peak_bytes} bytes; erasure {erasure_s:.2f} s\n")
    assert erased.request.status is RequestStatus.COMPLETED
    assert len(erased.receipts) == FIGURE
    assert await count(settings, "jobs") + await count(settings, "custody") + await count(settings, "outputs") == 0
    assert not blobs(settings)
    assert await keys_held(services) <= keys
    assert export_s <= 5
    assert peak_bytes <= 100_000_000
    assert erasure_s <= 10


async def test_a_broker_killed_in_the_middle_leaves_nothing(
    services: Services, settings: Settings, tmp_path: Path
) -> None:
    """Export over HTTP in 5 s and 100 MB; then kill -9 of whoever erases, half of it done: another process goes on."""
    user, keys = await minted(services), await keys_held(services)
    await crowd(services, user, settings)

    async def is_under_way() -> bool:
        return await count(settings, "custody", "what = 'output' AND closed_at IS NOT NULL") > 0

    async with broker_process(services, settings, tmp_path) as (process, api):
        http, auth = api.http, {"Authorization": f"Bearer {user.token}"}
        await http.get("/v1/me", headers=auth)
        before, began_s = peak_rss_bytes(process.child_pid), time.monotonic()
        exported = (await http.get("/v1/me/export", headers=auth)).json()
        export_s, grown_bytes = time.monotonic() - began_s, peak_rss_bytes(process.child_pid) - before
        sys.stdout.write(f"export over HTTP {export_s:.2f} s, {grown_bytes / 1e6:.1f} MB more\n")
        assert export_s <= 5
        assert grown_bytes <= 100_000 * 1024
        assert len(exported["jobs"]) == FIGURE
        asking = asyncio.create_task(http.delete("/v1/me", headers=auth))
        await eventually(is_under_way)
        process.kill()
        with pytest.raises(httpx.TransportError):
            await asking
    assert await count(settings, "jobs") > 0

    await completed(services, user, settings)
    assert await count(settings, "users", f"id = '{user.user_id}'") == 0
    assert await count(settings, "jobs") + await count(settings, "custody") + await count(settings, "outputs") == 0
    assert not blobs(settings)
    assert await keys_held(services) <= keys

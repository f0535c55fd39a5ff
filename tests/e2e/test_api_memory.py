"""What a broker still has in its memory of pictures that went through it: nothing."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import uuid4

from broker.services import Services
from broker.settings import Settings
from tests.api_client import Api
from tests.brokers import broker_process
from tests.hostile import connected, request
from tests.process_memory import needs_root, readable_memory
from tests.stack import JPEG_HEAD

MARKED_BYTES = 300_000


def marked(marker: bytes) -> bytes:
    return JPEG_HEAD + marker * (MARKED_BYTES // len(marker))


async def half_of(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
    await asyncio.Event().wait()


async def until(api: Api, path: str, status: int) -> None:
    async with asyncio.timeout(5):
        while (await api.get(path)).status_code != status:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.002)


async def copies(pid: int, markers: dict[str, bytes]) -> dict[str, int]:
    memory = await asyncio.to_thread(readable_memory, pid)
    return {name: sum(part.count(marker) for part in memory) for name, marker in markers.items()}


@needs_root
async def test_the_broker_forgets(services: Services, settings: Settings, tmp_path: Path) -> None:
    """Whole, repeated, broken-off, refused and unread uploads, and served outputs, leave no byte behind."""
    # ASCII: of random bytes the first may begin a segment of a JPEG, and what follows say that it is none.
    markers = {
        name: secrets.token_hex(4).encode() for name in ("whole", "broken", "refused", "unread", "ignored", "output")
    }
    async with broker_process(services, settings, tmp_path) as (process, api):
        whole_id, half_id = uuid4(), uuid4()
        for _ in range(2):
            assert (await api.put(marked(markers["whole"]), whole_id)).status_code == 202
        assert (await api.put(b"GIF89a" + marked(markers["refused"]))).status_code == 415
        assert (await api.put(marked(markers["unread"]), query="operation=unknown")).status_code == 422
        assert (await copies(process.child_pid, markers))["unread"] == 0
        url = (await api.finished(marked(markers["output"])))["outputs"][0]["url"]
        assert (await api.get(url)).content == marked(markers["output"])
        assert (await api.get(url, Range="bytes=5-70000")).status_code == 206

        text = request(api, "GET", f"/v1/jobs/{whole_id}", "Prefer: wait=20", "Content-Length: 30000") + "\r\n"
        async with connected(api) as client:
            await client.send(text, body=marked(markers["ignored"])[:30_000])
            await asyncio.sleep(0.2)
            assert (await copies(process.child_pid, markers))["ignored"] > 0  # nobody reads it, nobody drops it

        sending = asyncio.create_task(api.put(half_of(marked(markers["broken"])), half_id))
        await until(api, f"/v1/jobs/{half_id}", 200)
        await asyncio.sleep(0.2)
        assert (await copies(process.child_pid, markers))["broken"] > 0  # what is held can be found
        sending.cancel()
        await until(api, f"/v1/jobs/{half_id}", 404)
        assert await copies(process.child_pid, markers) == dict.fromkeys(markers, 0)

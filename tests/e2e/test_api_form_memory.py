"""What a broker still has in its memory of forms and words that went through it: nothing."""

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from broker.services import Services
from broker.settings import Settings
from tests.brokers import broker_process
from tests.forms import CONTENT_TYPE, form_of, job_part, open_studio, picture_part, studio_settings
from tests.lifecycle import count, eventually
from tests.process_memory import needs_root, readable_memory
from tests.stack import JPEG_HEAD

MARKED_BYTES = 300_000


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return studio_settings(settings, tmp_path)


def marked(marker: str) -> bytes:
    return picture_part(JPEG_HEAD + marker.encode() * (MARKED_BYTES // len(marker)))


def words(marker: str) -> dict[str, Any]:
    return {"parameters": {"prompt": f"{marker} " * 100}}


async def found(pid: int, markers: dict[str, str]) -> dict[str, int]:
    memory = await asyncio.to_thread(readable_memory, pid)
    return {name: sum(part.count(marker.encode()) for part in memory) for name, marker in markers.items()}


@needs_root
async def test_the_broker_forgets_forms_and_words(services: Services, settings: Settings, tmp_path: Path) -> None:
    """Whole, repeated, refused and broken-off forms, and words alone: no byte of picture or prompt stays behind."""
    await open_studio(services)
    names = ("first", "second", "words", "alone", "refused", "broken", "mismatched")
    markers = {name: os.urandom(8).hex() for name in names}
    async with broker_process(services, settings, tmp_path) as (process, api):
        api.http.headers.update(api.auth)

        async def post(key: str, content: bytes | AsyncGenerator[bytes]) -> int:
            headers = {"Idempotency-Key": key, "Content-Type": CONTENT_TYPE}
            return (await api.http.post("/v1/jobs", content=content, headers=headers)).status_code

        job = job_part(**words(markers["words"]))
        whole = form_of(job, marked(markers["first"]), marked(markers["second"]))
        assert [await post("whole", whole) for _ in range(2)] == [202, 202]
        assert await post("whole", form_of(job_part(**words(markers["mismatched"])), marked(markers["first"]))) == 422
        assert await post("refused", form_of(job, marked(markers["refused"]), picture_part(bytes(900)))) == 415
        alone = {"operation": "generate", **words(markers["alone"])}
        for _ in range(2):
            answer = await api.http.post("/v1/jobs", json=alone, headers={"Idempotency-Key": "alone"})
            assert answer.status_code == 202

        async def half() -> AsyncGenerator[bytes]:
            yield form_of(job, marked(markers["first"]), marked(markers["broken"]))[:-1000]
            await asyncio.Event().wait()

        sending = asyncio.create_task(post("broken", half()))
        await eventually(lambda: count(settings, "jobs", "state = 'receiving' AND open_copies = 7"))
        assert (await found(process.child_pid, markers))["broken"] > 0  # what is held can be found
        sending.cancel()
        await eventually(lambda: _is_settled(settings))
        assert await found(process.child_pid, markers) == dict.fromkeys(markers, 0)


async def _is_settled(settings: Settings) -> bool:
    return await count(settings, "jobs", "state = 'receiving'") == 0

"""A real worker process runs real jobs: no-op, upscale, restyle, bad input."""

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image

from broker.crypto.chunked import CHUNK_BYTES, KEY_BYTES, Decryptor
from broker.jobs import Job
from broker.receipts import verify
from broker.services import Services
from broker.settings import Settings
from broker.store.keys import OpenAnswer
from tests.processes import LetheProcess, lethe_process
from tests.stack import body_of, keyholder_of, running_services, submission, upload_bytes


async def final_job(services: Services, job_id: UUID, *, within_s: float = 30.0) -> Job:
    async with asyncio.timeout(within_s):
        with services.changes.watch(job_id) as changed:
            while True:
                changed.clear()
                job = await services.stores.jobs.get(job_id)
                assert job is not None
                if job.is_final:
                    return job
                await changed.wait()


@pytest.fixture
async def services(settings: Settings) -> AsyncGenerator[Services]:
    """A broker's services, without a pretended worker."""
    async with running_services(settings) as services:
        yield services


@pytest.fixture
async def worker(services: Services, settings: Settings, tmp_path: Path) -> AsyncIterator[LetheProcess]:
    with lethe_process(["workers", "gpu"], settings, tmp_path) as process:
        async with asyncio.timeout(30):
            while not await services.fleet.operations():
                assert process.running.poll() is None, process.log
                await asyncio.sleep(0.1)
        yield process


async def test_a_noop_job_succeeds_and_its_upload_is_gone(services: Services, worker: LetheProcess) -> None:
    """A job that succeeds has an output, a receipt, and no open copy of its upload."""
    job, _ = await services.intake.submit(await submission(services), body_of(upload_bytes(100_000)))

    final = await final_job(services, job.id)

    assert final.state == "succeeded", worker.log
    assert final.open_copies == 0
    note = await services.stores.receipts.latest(job.id)
    assert note is not None
    receipt = verify(note, [services.signer.vkey])
    assert {copy.evidence for copy in receipt.copies} == {"shredded", "absent", "overwritten"}
    assert len(await services.stores.custody.outputs(job.id)) == 1


async def output_of(services: Services, job: Job, folder: Path) -> bytes:
    """Open an output as the broker does for its owner."""
    (output,) = await services.stores.custody.outputs(job.id)
    key = bytearray(KEY_BYTES)
    assert await keyholder_of(services).open_into(output.key_id, key, fence=job.fence) is OpenAnswer.OK
    plain = bytearray(output.size_bytes + CHUNK_BYTES)
    decryptor, at = Decryptor(key, context=output.blob.encode()), 0
    with memoryview(plain) as view:
        async for chunk in services.stores.blobs.read(output.blob):
            at += decryptor.update(chunk, view[at:])
        at += decryptor.finish(view[at:])
    return bytes(plain[:at])


async def test_a_picture_comes_out_larger(services: Services, worker: LetheProcess, tmp_path: Path) -> None:
    """A worker's output is a clean picture of the right size; tests/e2e/test_main_job.py goes through the rest."""
    original = jpeg(96, 64, planted=b"GPS-CANARY-0451")
    made = await submission(services, operation="upscale", parameters={"scale": 4, "quality": "fast"})

    job, _ = await services.intake.submit(made, body_of(original))
    final = await final_job(services, job.id)

    assert final.state == "succeeded", worker.log
    data = await output_of(services, final, tmp_path)
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (384, 256))
    assert b"GPS-CANARY-0451" in original
    assert b"GPS-CANARY-0451" not in data


def jpeg(width: int, height: int, *, planted: bytes = b"") -> bytes:
    """A picture with structure, and with a comment that must not survive."""
    picture = Image.radial_gradient("L").resize((width, height)).convert("RGB")
    sheet = io.BytesIO()
    picture.save(sheet, "JPEG", quality=90, comment=planted)
    return sheet.getvalue()

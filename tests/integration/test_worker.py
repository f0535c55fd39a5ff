"""A real worker process runs real jobs: no-op, upscale, restyle, bad input."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from broker.jobs import Job
from broker.receipts import verify
from broker.services import Services
from broker.settings import Settings
from tests.processes import LetheProcess, lethe_process
from tests.stack import body_of, running_services, submission, upload_bytes


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

"""DELETE: a live job ends and its upload goes, a final one loses its outputs, and the answer says which it was."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from broker.errors import JobNotFound, UploadSuperseded
from broker.jobs import Job, JobState, Outcome
from broker.services import Services
from broker.settings import Settings
from providers.calls import trust
from tests.lifecycle import (
    blobs,
    claimed_job,
    count,
    eventually,
    final,
    held,
    is_empty,
    keys_held,
    let_go,
    reread,
)
from tests.stack import body_of, pretend_worker, queued_job, running_services, submission, upload_bytes
from tests.workers import SlowWorker, slow_worker


@pytest.fixture
async def broker(settings: Settings) -> AsyncGenerator[Services]:
    async with running_services(settings) as services:
        yield services


@pytest.fixture
async def worker(broker: Services, settings: Settings, tmp_path: Path) -> AsyncIterator[SlowWorker]:
    async with slow_worker(broker, settings, tmp_path) as worker:
        yield worker


async def test_a_queued_job_is_cancelled_at_once(services: Services, settings: Settings) -> None:
    """Final when DELETE answers, free of charge, with a receipt, nothing left."""
    job, keys = await queued_job(services), await keys_held(services)

    verdict = await services.cancellation.delete(job)

    assert (verdict.job.state, verdict.canceled, verdict.job.charged) == ("canceled", True, False)
    assert (await final(services, job)).code == "canceled_by_user"
    assert blobs(settings) == []
    assert await keys_held(services) == keys - 1


async def test_a_running_job_is_cancelled_within_a_second(broker: Services, worker: SlowWorker) -> None:
    """The worker hears it, wipes what it held and goes on living; the job is final before a second is over."""
    job, _ = await broker.intake.submit(await submission(broker), body_of(upload_bytes()))
    await worker.has_begun(1)
    running = await reread(broker, job)
    began_s = time.monotonic()

    verdict = await broker.cancellation.delete(running)

    assert time.monotonic() - began_s < 1.0
    assert (verdict.job.state, verdict.canceled) == ("canceled", True)
    (row,) = [c for c in await broker.stores.custody.copies(job.id) if c.detail == "worker"]
    assert row.evidence == "overwritten"
    worker.open_gate()
    again, _ = await broker.intake.submit(await submission(broker), body_of(upload_bytes()))
    assert (await final(broker, again)).state == "succeeded"
    await eventually(lambda: _shown(broker, 'lethe_attempts_total{operation="noop",result="stale"} 1.0'))
    await eventually(lambda: _shown(broker, 'lethe_attempts_total{operation="noop",result="succeeded"} 1.0'))


async def _shown(services: Services, line: str) -> bool:
    """Whether a worker's own figures have this line; its address travels with a renewal."""
    addresses = [p.facts.operator_address for p in await services.stores.processes.alive() if p.facts.pool == "gpu"]
    async with httpx.AsyncClient(verify=trust(), trust_env=False) as client:
        return any([line in (await client.get(f"{at}/metrics")).text for at in addresses if at])


async def test_a_second_cancel_changes_nothing(services: Services, settings: Settings) -> None:
    """DELETE may be repeated; only the first one cancelled anything."""
    job = await queued_job(services)
    await services.cancellation.delete(job)
    first = await reread(services, job)

    verdict = await services.cancellation.delete(first)

    assert (verdict.job.state, verdict.canceled, verdict.outputs_destroyed) == ("canceled", False, True)
    assert (await reread(services, job)).version == first.version
    assert await count(settings, "receipts") == 1


async def test_many_cancels_at_once_have_one_winner(services: Services, settings: Settings) -> None:
    """Sixteen DELETEs race: one cancelled, all see the end, one receipt."""
    job = await queued_job(services)

    verdicts = await asyncio.gather(*(services.cancellation.delete(job) for _ in range(16)))

    assert sum(verdict.canceled for verdict in verdicts) == 1
    assert {verdict.job.state for verdict in verdicts} == {"canceled"}
    assert await count(settings, "receipts") == 1


async def test_a_cancel_that_comes_too_late_leaves_the_outcome(services: Services) -> None:
    """A success that was decided first stays one, is charged, and its outputs are destroyed."""
    job = await claimed_job(services)
    settling = await services.stores.jobs.begin_settling(job, Outcome.SUCCEEDED, owner=services.lease.process.id)
    settled = asyncio.create_task(services.settler.settle(settling, let_go=held(job)))

    verdict = await services.cancellation.delete(job)

    assert (verdict.job.state, verdict.canceled, verdict.job.charged) == ("succeeded", False, True)
    await settled


async def test_a_cancel_races_a_claim(services: Services) -> None:
    """Claimed between the look and the write: cancelled all the same, once the worker has let go."""
    seen = await queued_job(services)
    claimed = await services.stores.jobs.claim(seen.id, await pretend_worker(services))
    assert claimed is not None
    deleting = asyncio.create_task(services.cancellation.delete(seen))
    await eventually(lambda: _is_settling(services, claimed))

    await let_go(services, claimed)

    assert (await deleting).job.state == "canceled"


async def _is_settling(services: Services, job: Job) -> bool:
    return (await reread(services, job)).state == "settling"


async def test_an_upload_still_coming_in_is_discarded(services: Services, settings: Settings) -> None:
    """DELETE while receiving: no job, the stream is cut, nothing is left."""

    async def stalled() -> AsyncIterator[bytes]:
        yield upload_bytes(200_000)
        await asyncio.Event().wait()

    made, keys = await submission(services), await keys_held(services)
    sending = asyncio.create_task(services.intake.submit(made, stalled()))
    await eventually(lambda: count(settings, "jobs"))
    await eventually(lambda: _receiving(services))
    job = await services.stores.jobs.find(made.user_id, made.public_id)
    assert job is not None

    with pytest.raises(JobNotFound):
        await services.cancellation.delete(job)

    with pytest.raises(UploadSuperseded):
        await sending
    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)
    assert await _receiving(services) == 0


async def _receiving(services: Services) -> float | None:
    return services.metrics.registry.get_sample_value("lethe_uploads_receiving")


async def test_a_cancel_races_the_last_byte(services: Services) -> None:
    """Queued between the look and the write: the job is cancelled, not said to be unknown while it goes on."""
    queued = await queued_job(services)
    seen = msgspec.structs.replace(queued, state=JobState.RECEIVING)

    verdict = await services.cancellation.delete(seen)

    assert (verdict.job.state, verdict.canceled) == ("canceled", True)

"""Jobs that nobody works on any more: run again, given up, expired; with real workers that are killed and stopped."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import msgspec
import pytest

from broker.errors import StoreUnavailable
from broker.jobs import Job
from broker.rescue import AT_ONCE
from broker.services import Services
from broker.settings import Settings
from broker.settle import Settler
from broker.store.jobs import JobStore
from tests.lifecycle import claimed_job, count, eventually, final, held, reread, run_sql
from tests.stack import body_of, pretend_worker, queued_job, running_services, submission, upload_bytes
from tests.workers import SlowWorker, slow_worker
from workers.outcomes import Ending, HandOver, failed
from workers.runner import Runner


@pytest.fixture
async def broker(settings: Settings) -> AsyncGenerator[Services]:
    """A broker without a pretended worker."""
    async with running_services(settings) as services:
        yield services


@pytest.fixture
async def worker(broker: Services, settings: Settings, tmp_path: Path) -> AsyncIterator[SlowWorker]:
    async with slow_worker(broker, settings, tmp_path) as worker:
        yield worker


async def started_job(broker: Services, worker: SlowWorker) -> Job:
    job, _ = await broker.intake.submit(await submission(broker), body_of(upload_bytes()))
    await worker.has_begun(1)
    return await reread(broker, job)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def test_a_job_survives_its_worker(
    broker: Services, worker: SlowWorker, settings: Settings, tmp_path: Path
) -> None:
    """Kill -9 in the middle of a job: queued again within 15 s, run by the next worker, one crash counted."""
    job = await started_job(broker, worker)
    killed_at_s = time.monotonic()
    worker.process.kill()
    await eventually(lambda: _is_queued(broker, job), within_s=15)
    assert time.monotonic() - killed_at_s < 15

    worker.open_gate()
    async with slow_worker(broker, settings, tmp_path):
        done = await final(broker, job)

    assert (done.state, done.crashes, done.attempts) == ("succeeded", 1, 2)
    held = [c for c in await broker.stores.custody.copies(job.id) if c.detail == "worker"]
    assert [copy.evidence for copy in held] == ["lease_ended", "overwritten"]
    assert await count(settings, "receipts") == 1


async def _is_queued(services: Services, job: Job) -> bool:
    return (await reread(services, job)).state == "queued"


async def test_a_job_that_kills_its_workers_is_given_up(services: Services, settings: Settings) -> None:
    """It runs as often as the settings allow, then fails, and is not queued again in between."""
    job = await queued_job(services)
    for crash in range(1, settings.max_crashes + 1):
        worker = await pretend_worker(services)
        claimed = await services.stores.jobs.claim(job.id, worker)
        assert claimed is not None
        assert (claimed.attempts, claimed.crashes) == (crash, crash - 1)
        await run_sql(settings, "UPDATE processes SET lease_until = now() - interval '3 seconds' WHERE id = $1", worker)
        await eventually(lambda: _left_running(services, job))

    done = await final(services, job)
    assert (done.state, done.code, done.attempts) == ("failed", "crashed_worker", settings.max_crashes)
    assert done.crashes == settings.max_crashes


async def _left_running(services: Services, job: Job) -> bool:
    return (await reread(services, job)).state != "running"


async def test_a_worker_is_rescued_only_after_its_grace(services: Services, settings: Settings) -> None:
    """Until two seconds after its lease the guard may still be at work: the job stays where it is."""
    job = await claimed_job(services)
    await run_sql(settings, "UPDATE processes SET lease_until = now() WHERE id = $1", job.owner)

    await eventually(lambda: _is_queued(services, job), within_s=5)

    tables = "custody JOIN processes ON processes.id::text = custody.ref"
    late = "custody.evidence = 'lease_ended' AND custody.closed_at >= processes.lease_until + interval '2 seconds'"
    assert await count(settings, tables, late) == 1


async def test_a_stopped_worker_is_dead_before_its_row_is_closed(broker: Services, worker: SlowWorker) -> None:
    """SIGSTOP past its lease: its guard has killed it before anybody may say that it holds nothing."""
    job = await started_job(broker, worker)
    pid = worker.process.child_pid
    os.kill(pid, signal.SIGSTOP)
    closed_while_alive = False

    async def is_closed() -> bool:
        nonlocal closed_while_alive
        alive = is_alive(pid)
        (row,) = [c for c in await broker.stores.custody.copies(job.id) if c.detail == "worker"]
        if alive and (await _closed_row(broker, job)):
            # Asked again: the process may have died between the two looks.
            closed_while_alive = is_alive(pid)
        return not row.is_open

    await eventually(is_closed, within_s=15)

    assert not closed_while_alive
    assert not is_alive(pid)
    (row,) = [c for c in await broker.stores.custody.copies(job.id) if c.detail == "worker"]
    assert row.evidence == "lease_ended"


async def _closed_row(services: Services, job: Job) -> bool:
    return any(not c.is_open for c in await services.stores.custody.copies(job.id) if c.detail == "worker")


async def test_a_worker_that_is_asked_to_stop_hands_its_job_back(
    broker: Services, worker: SlowWorker, settings: Settings, tmp_path: Path
) -> None:
    """SIGTERM in the middle of a job: given back wiped, no crash counted, and finished by the next worker."""
    job = await started_job(broker, worker)
    assert await asyncio.to_thread(worker.process.stop) == 0

    back = await reread(broker, job)
    assert (back.state, back.crashes) == ("queued", 0)
    assert "overwritten" in {c.evidence for c in await broker.stores.custody.copies(job.id) if c.detail == "worker"}

    worker.open_gate()
    async with slow_worker(broker, settings, tmp_path):
        assert (await final(broker, job)).state == "succeeded"


async def test_a_worker_that_is_asked_to_stop_may_finish(broker: Services, worker: SlowWorker) -> None:
    """What ends within the drain time ends where it runs."""
    job = await started_job(broker, worker)
    worker.process.running.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.2)
    worker.open_gate()

    done = await final(broker, job)

    assert (done.state, done.attempts) == ("succeeded", 1)


async def test_a_job_that_nobody_starts_expires(services: Services, settings: Settings) -> None:
    """At its start deadline it ends as `expired`, its upload gone, never run."""
    made = msgspec.structs.replace(await submission(services), start_within_s=1.0)
    job, _ = await services.intake.submit(made, body_of(upload_bytes()))

    done = await final(services, job)

    assert (done.state, done.code, done.attempts) == ("expired", "not_started_in_time", 0)


async def test_a_job_that_does_not_end_expires(broker: Services, worker: SlowWorker) -> None:
    """At its finish deadline the worker stops it and lets go."""
    made = msgspec.structs.replace(await submission(broker), finish_within_s=2.0)
    job, _ = await broker.intake.submit(made, body_of(upload_bytes()))
    await worker.has_begun(1)

    done = await final(broker, job)

    assert (done.state, done.code, done.attempts) == ("expired", "not_finished_in_time", 1)
    assert worker.process.running.poll() is None


async def test_a_job_whose_worker_is_dead_at_its_deadline_expires(services: Services, settings: Settings) -> None:
    """All workers gone: the broker's own pass ends it, and waits for the lease as for any holder."""
    job = await claimed_job(services, lease_s=0.5)
    await run_sql(settings, "UPDATE jobs SET finish_by = now() WHERE id = $1", job.id)

    done = await final(services, job)

    assert (done.state, done.code) == ("expired", "not_finished_in_time")


async def test_a_claim_that_was_not_heard_is_handed_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, broker: Services
) -> None:
    """Postgres gave the job and the answer was lost: the worker, which lives on, gives it back with its renewal."""

    async def attempt(job: Job) -> Ending:
        return failed("tested")

    async with running_services(settings, role="worker") as working:
        await pretend_worker(broker)

        async def conclude(job: Job, ending: Ending | HandOver) -> None:
            assert isinstance(ending, Ending)
            settling = await working.stores.jobs.begin_settling(
                job, ending.outcome, owner=working.lease.process.id, code=ending.code
            )
            await working.settler.settle(settling, let_go=held(job))

        runner = Runner(working, attempt=attempt, conclude=conclude, is_ordering=lambda _: False, slots=4)
        claim = JobStore.claim

        async def claim_unheard(self: JobStore, *args: object) -> Job | None:
            await claim(self, *args)  # pyright: ignore[reportArgumentType]
            raise StoreUnavailable

        job = await queued_job(broker)
        with monkeypatch.context() as patched:
            patched.setattr(JobStore, "claim", claim_unheard)
            with pytest.raises(StoreUnavailable):
                await runner.take(job.id)
        assert (await reread(broker, job)).state == "running"

        await eventually(lambda: _is_queued(broker, job), within_s=5)
        await runner.take(job.id)
        assert (await final(broker, job)).code == "tested"


async def test_one_broken_job_holds_up_no_other(services: Services, settings: Settings) -> None:
    """A job whose custody cannot be read stays settling; the next one is settled, and the process lives."""
    broken, sound = await queued_job(services), await queued_job(services)
    await run_sql(
        settings,
        "INSERT INTO custody (job_id, domain, holder, what, ref, fence) "
        "VALUES ($1, 'ours', 'key', 'upload', 'no hex', 1)",
        broken.id,
    )
    await run_sql(settings, "UPDATE jobs SET finish_by = now()")

    assert (await final(services, sound)).state == "expired"
    assert (await reread(services, broken)).state == "settling"


async def test_no_more_is_taken_than_can_be_settled(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settling that hangs keeps what is beyond its room for others, and takes it up when there is room again."""
    hanging = asyncio.Event()
    settled: list[Job] = []

    async def settle_or_postpone(job: Job) -> None:
        settled.append(job)
        await hanging.wait()

    async with running_services(msgspec.structs.replace(settings, rescue_every_s=3600.0)) as quiet:
        await pretend_worker(quiet)
        jobs = [await queued_job(quiet) for _ in range(AT_ONCE + 4)]
        stop = "settling_until = now() - interval '1 second', decided_at = now()"
        monkeypatch.setattr(Settler, "settle_or_postpone", staticmethod(settle_or_postpone))
        await run_sql(settings, f"UPDATE jobs SET state = 'settling', outcome = 'failed', {stop}")
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                await quiet.rescue.once(tasks)
            await asyncio.sleep(0)
            assert len(settled) == AT_ONCE
            assert await count(settings, "jobs", "settling_until < now()") == 4
            hanging.set()
        async with asyncio.TaskGroup() as tasks:
            await quiet.rescue.once(tasks)
    assert {job.id for job in settled} == {job.id for job in jobs}

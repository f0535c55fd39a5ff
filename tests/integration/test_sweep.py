"""Data past its time goes by itself: outputs, records, idle users, unfinished uploads."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from broker.errors import BlobsUnavailable
from broker.jobs import Job
from broker.log import capture_log
from broker.services import Services
from broker.settings import Settings
from broker.store.blobs import BlobStore, new_name
from broker.store.jobs import BATCH
from tests.lifecycle import blobs, claimed_job, count, eventually, hasty, keys_held, run_sql, settled
from tests.rows import open_rows
from tests.stack import body_of, pretend_worker, queued_job, running_services
from workers.outputs import Made, keep_output


async def succeeded(services: Services) -> Job:
    """A job with one output, as a worker leaves it."""
    job = await claimed_job(services)
    made = Made(data=memoryview(b"picture"), media_type="image/png", width=1, height=1)
    output = await keep_output(services.stores, job, made, n=0, lifetime_s=600)
    return await settled(services, job, outputs=[output])


async def test_outputs_go_at_their_time(services: Services, settings: Settings) -> None:
    """After `outputs_until` blob and key are destroyed, and the rows say so; not before."""
    keys = await keys_held(services)
    job = await succeeded(services)
    await services.sweep.once()
    assert len(blobs(settings)) == 1

    await run_sql(settings, "UPDATE jobs SET outputs_until = now() - interval '1 second'")
    await eventually(lambda: _are_gone(settings))

    assert blobs(settings) == []
    assert await keys_held(services) == keys
    (output,) = await services.stores.custody.outputs(job.id)
    assert output.destroyed_at is not None
    words = {copy.evidence for copy in await services.stores.custody.copies(job.id) if copy.what == "output"}
    assert words == {"absent", "shredded"}


async def _are_gone(settings: Settings) -> bool:
    return await count(settings, "outputs", "destroyed_at IS NULL") == 0


async def test_records_go_at_their_time(services: Services, settings: Settings) -> None:
    """xpictures-7: job, custody and receipt are deleted together after `records_for`, and no sooner."""
    job = await queued_job(services)
    await services.cancellation.delete(job)
    await services.sweep.records()
    assert await count(settings, "jobs") == 1

    await hasty(services).records()

    for table in ("jobs", "custody", "receipts", "outputs"):
        assert await count(settings, table) == 0


async def test_records_go_all_at_once(services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """More jobs than one statement deletes are still gone after one pass."""
    monkeypatch.setattr("broker.store.jobs.BATCH", 1)
    monkeypatch.setattr("broker.sweep.BATCH", 1)
    for _ in range(3):
        await services.cancellation.delete(await queued_job(services))

    await hasty(services).records()

    assert await count(settings, "jobs") == 0


async def test_records_stay_while_something_is_left(services: Services, settings: Settings) -> None:
    """A job with an output, or whose unreadable blob still lies there, keeps its rows."""
    await succeeded(services)
    unreadable = await queued_job(services)
    await services.cancellation.delete(unreadable)
    await run_sql(
        settings,
        "INSERT INTO custody (job_id, domain, holder, what, ref, fence, closed_at, evidence) "
        "VALUES ($1, 'ours', 'blob', 'upload', 'ab', 1, now(), 'unreadable')",
        unreadable.id,
    )
    assert await services.stores.jobs.forget(records_for_s=0) == 0

    await hasty(services).records()  # deletes the blob that is not there, and with it the reason

    assert await count(settings, "jobs") == 1


UNREADABLE = """
INSERT INTO custody (job_id, domain, holder, what, ref, fence, closed_at, evidence)
SELECT $1, 'ours', 'blob', 'upload', ref, 1, now(), 'unreadable' FROM unnest($2::text[]) AS ref
"""
UNSWEPT = "evidence = 'unreadable' AND swept_at IS NULL"


@asynccontextmanager
async def left_unreadable(settings: Settings, *, times: int) -> AsyncGenerator[Services]:
    """So many blobs that a store which was silent did not delete, and their rows; nobody sweeps by himself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("broker.services.SWEEP_EVERY_S", 3600.0)
        async with running_services(settings) as services:
            await pretend_worker(services)
            names, job = [new_name() for _ in range(times)], await queued_job(services)
            await services.cancellation.delete(job)
            for name in names:
                await services.stores.blobs.put(name, body_of(b"ciphertext"))
            await run_sql(settings, UNREADABLE, job.id, names)
            assert len(blobs(settings)) == times
            yield services


async def test_a_store_that_was_silent_for_long_is_emptied_at_once(settings: Settings) -> None:
    """More blobs than one statement lists are deleted in one pass."""
    async with left_unreadable(settings, times=2 * BATCH + 20) as services:
        await services.sweep.records()

        assert blobs(settings) == []
        assert await count(settings, "custody", UNSWEPT) == 0


async def test_two_who_sweep_at_once_do_each_other_no_harm(settings: Settings) -> None:
    """Both may delete the same blob and write the same row: neither fails, and nothing is left."""
    async with left_unreadable(settings, times=BATCH) as services:
        with capture_log() as lines:
            await asyncio.gather(services.sweep.records(), hasty(services).records())

        assert blobs(settings) == []
        assert [line for line in map(str, lines) if "sweep_" in line] == []


async def test_a_store_that_is_silent_again_is_left_alone(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one blob of a batch stays, the rest waits for the next pass."""
    asked: list[str] = []

    async def silent_to_all_but_one(store: BlobStore, name: str) -> None:
        asked.append(name)
        if len(asked) > 1:
            raise BlobsUnavailable

    async with left_unreadable(settings, times=3 * BATCH) as services:
        with monkeypatch.context() as patch:
            patch.setattr(BlobStore, "destroy", silent_to_all_but_one)
            await services.sweep.records()

        assert len(asked) == BATCH
        assert await count(settings, "custody", UNSWEPT) == 3 * BATCH - 1


async def test_live_jobs_have_no_age(services: Services, settings: Settings) -> None:
    """Records of a job that is not final are never deleted."""
    await queued_job(services)
    await hasty(services).records()
    assert await count(settings, "jobs") == 1


async def test_idle_users_go_when_no_job_is_left(services: Services, settings: Settings) -> None:
    """An anonymous id that nobody uses is deleted, but never under a job."""
    job = await queued_job(services)
    await services.stores.users.mint()
    await run_sql(settings, "UPDATE users SET last_seen_on = last_seen_on - 31")
    await services.stores.users.mint()

    await services.sweep.records()
    assert await count(settings, "users") == 2

    await services.cancellation.delete(job)
    await hasty(services).records()
    assert await count(settings, "users") == 1


async def test_an_upload_past_its_time_goes(services: Services, settings: Settings) -> None:
    """A receiving row whose broker is dead, or whose time is up, is destroyed with what lies at its names."""
    async with open_rows(settings) as rows:
        dead, late, young = await rows.received(), await rows.received(), await rows.received()
        await run_sql(settings, "UPDATE processes SET lease_until = now() - interval '3 s' WHERE id = $1", dead.owner)
        await run_sql(settings, "UPDATE jobs SET finish_by = now() - interval '1 s' WHERE id = $1", late.id)
        await run_sql(settings, "DELETE FROM processes WHERE id = $1", late.owner)

        await eventually(lambda: _left(settings, 1))

        assert (await rows.get(young)).state == "receiving"


async def _left(settings: Settings, jobs: int) -> bool:
    return await count(settings, "jobs") == jobs


async def test_one_upload_that_stays_blocks_no_other(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs whose store lies stay open and are tried again; those of every other job are destroyed."""
    monkeypatch.setattr("broker.services.BlobStore", StubbornBlobStore)
    async with running_services(settings) as services:
        await pretend_worker(services)
        jobs = [await succeeded(services) for _ in range(4)]
        (stubborn,) = await services.stores.custody.outputs(jobs[1].id)
        StubbornBlobStore.kept = stubborn.blob
        await run_sql(settings, "UPDATE jobs SET outputs_until = now() - interval '1 second'")

        await services.sweep.once()

        assert blobs(settings) == [stubborn.blob]
        still = services.metrics.registry.get_sample_value("lethe_still_held_total", {"what": "blob"})
        assert still
        StubbornBlobStore.kept = ""
        await services.sweep.once()
        assert blobs(settings) == []


class StubbornBlobStore(BlobStore):
    """Keeps one blob whatever it is told."""

    kept: ClassVar[str] = ""

    async def _delete(self, name: str) -> None:
        if name != type(self).kept:
            await super()._delete(name)


async def test_dead_processes_are_forgotten_when_nothing_names_them(services: Services, settings: Settings) -> None:
    """A row stays while a copy may still be judged by its lease."""
    job = await claimed_job(services)
    await pretend_worker(services)
    await run_sql(settings, "UPDATE jobs SET finish_by = now() + interval '1 hour'")
    await run_sql(
        settings, "UPDATE processes SET lease_until = now() - interval '11 minutes' WHERE id <> $1", job.owner
    )
    await services.sweep.records()
    assert await count(settings, "processes", f"id = '{job.owner}'") == 1

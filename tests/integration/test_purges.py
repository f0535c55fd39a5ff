"""What providers have of a job is deleted as far as they can, tried for a day, and stated as they answer, no more."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from PIL import Image

from broker.jobs import Job, JobState
from broker.metrics import render
from broker.services import Services
from broker.settings import Settings
from tests.emulators.base import Scripted, broken
from tests.emulators.replicate import ReplicateEmulator
from tests.images_corpus import saved
from tests.lifecycle import eventually, reread, run_sql
from tests.pictures import photo
from tests.relay import emulated_replicate, ended, receipt, relaying, replicate, route, sent, words


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Generator[ReplicateEmulator]:
    """An emulated Replicate."""
    with emulated_replicate(monkeypatch) as made:
        yield made


@pytest.fixture
async def services(settings: Settings, tmp_path: Path, provider: ReplicateEmulator) -> AsyncGenerator[Services]:
    """A broker and a relay worker."""
    config = replicate(provider.url) + route("upscale", "[{ replicate = 1 }]")
    async with relaying(settings, tmp_path, config) as services:
        yield services


def large() -> bytes:
    """A picture that is too large for a data URI, so that it is uploaded as a file."""
    return saved(Image.fromarray(photo(700, 600)), "PNG")


DUE = "UPDATE attempts SET purge_at = now() - interval '1 second' WHERE purge_at IS NOT NULL"
OVERDUE = DUE.replace("SET", "SET purge_until = now() - interval '2 hours',")


async def revised(services: Services, job: Job, settings: Settings | None = None) -> None:
    """Wait for the second receipt; with settings, nobody waits a minute before a provider is asked again."""

    async def is_there() -> bool:
        if settings is not None:
            await run_sql(settings, DUE)
        return (await receipt(services, job)).revision == 2

    await eventually(is_there, within_s=15)


async def test_an_uploaded_file_is_deleted_in_settle(services: Services, provider: ReplicateEmulator) -> None:
    """The file is gone before the job is final; what has no delete call is stated by its documented time."""
    job = await ended(services, await sent(services, large()))

    assert job.state is JobState.SUCCEEDED
    assert provider.requests("upload")
    assert not provider.files
    assert await words(services, job) == {"upload": "deleted_by_api", "output": "expires_by", "record": "expires_by"}
    assert (await receipt(services, job)).revision == 1


async def test_a_delete_of_what_is_gone_is_a_delete(services: Services, provider: ReplicateEmulator) -> None:
    """404 to a delete says that nothing is there."""
    provider.next("delete", Scripted(answer=None, is_done_first=True))  # done, and nobody hears of it

    job = await ended(services, await sent(services, large()))
    await revised(services, job)

    assert (await words(services, job))["upload"] == "deleted_by_api"


async def test_a_provider_that_says_deleted_and_still_serves_is_unknown(
    services: Services, provider: ReplicateEmulator
) -> None:
    """200 to the delete, and the file is served all the same: `unknown`, and the alarm counts."""
    provider.is_keeping_files = True

    job = await ended(services, await sent(services, large()))

    assert job.state is JobState.SUCCEEDED
    assert (await words(services, job))["upload"] == "unknown"
    assert job.provider_copies == "unknown"
    stated = await receipt(services, job)
    assert {copy.evidence for copy in stated.copies if copy.what == "upload" and copy.domain == "provider"} == {
        "unknown"
    }


async def test_what_a_silent_provider_has_is_pending_and_asked_for_again(
    services: Services, provider: ReplicateEmulator, settings: Settings
) -> None:
    """The job does not wait for a provider that is down: `pending`, then the next receipt when it answers."""
    provider.next("delete", *[broken(500)] * 2)

    job = await ended(services, await sent(services, large()))

    assert job.state is JobState.SUCCEEDED
    assert job.provider_copies == "pending"
    stated = await receipt(services, job)
    pending = [copy for copy in stated.copies if copy.evidence == "purge_pending"]
    assert len(pending) == 3
    assert all(copy.until for copy in pending)

    await revised(services, job, settings)
    assert not provider.files
    assert (await reread(services, job)).provider_copies == "expires"
    assert (await words(services, job))["upload"] == "deleted_by_api"


async def test_a_day_of_silence_ends_as_unknown(
    services: Services, provider: ReplicateEmulator, settings: Settings
) -> None:
    """After a day nobody is asked any more, and nothing is claimed."""
    provider.next("delete", *[broken(500)] * 20)
    job = await ended(services, await sent(services, large()))
    assert job.provider_copies == "pending"

    await run_sql(
        settings,
        "UPDATE attempts SET purge_at = now() - interval '1 second', purge_until = now() - interval '1 second'",
    )
    await revised(services, job)

    assert set((await words(services, job)).values()) == {"unknown"}
    assert (await reread(services, job)).provider_copies == "unknown"


async def test_a_purge_that_no_worker_can_do_ends_as_unknown(services: Services, settings: Settings) -> None:
    """Where a provider was taken out of the configuration, the sweep of any process closes the matter."""
    job = await ended(services, await sent(services))
    await run_sql(settings, "UPDATE attempts SET provider = 'gone', deletes = 'api', purge_at = now()")
    await run_sql(settings, OVERDUE)

    await services.sweep.records()

    assert (await receipt(services, job)).revision == 2
    assert set((await words(services, job)).values()) == {"unknown"}
    assert b'lethe_provider_unknown_total{provider="gone"} 1.0' in render(services.metrics.registry)


async def test_records_stay_while_a_purge_is_pending(
    services: Services, provider: ReplicateEmulator, settings: Settings
) -> None:
    """A job's record outlives its time while a provider has still to be asked, and not longer."""
    provider.next("delete", *[broken(500)] * 20)
    job = await ended(services, await sent(services, large()))
    await services.settler.destroy_outputs(job.id)

    assert await services.stores.jobs.forget(records_for_s=0) == 0

    await run_sql(settings, "UPDATE attempts SET purge_at = NULL, purge_until = NULL")
    assert await services.stores.jobs.forget(records_for_s=0) == 1

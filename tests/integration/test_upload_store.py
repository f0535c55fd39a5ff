"""What a job was given, as rows: listed with its admission, and preceded by custody while it comes in."""

from collections.abc import AsyncGenerator
from uuid import uuid4

import msgspec
import pytest

from broker.custody import Holder, NewCopy, What
from broker.errors import IllegalTransition
from broker.jobs import Job, Outcome
from broker.settings import Settings
from tests.rows import ADMISSION, UPLOAD, Rows, open_rows

COPIES = [NewCopy(holder=Holder.BLOB, what=What.UPLOAD, ref="b")]


@pytest.fixture
async def rows(settings: Settings) -> AsyncGenerator[Rows]:
    async with open_rows(settings) as rows:
        yield rows


async def test_what_a_job_was_given_is_listed_with_its_admission(rows: Rows) -> None:
    """One statement queues the job and lists its uploads, in order; a stale one lists nothing."""
    job = await rows.received()
    typed = msgspec.structs.replace(UPLOAD, n=-1, what=What.PARAMETERS, media_type="application/json", size_bytes=9)
    second = msgspec.structs.replace(UPLOAD, n=1, blob="b" * 32, key_id=bytes(16), size_bytes=7)
    admission = msgspec.structs.replace(ADMISSION, uploads=(second, typed, UPLOAD))

    with pytest.raises(IllegalTransition):
        await rows.jobs.admit(msgspec.structs.replace(job, fence=job.fence + 1), admission)
    assert await rows.custody.uploads(job.id) == []
    queued = await rows.jobs.admit(job, admission)

    assert await rows.custody.uploads(job.id) == [typed, UPLOAD, second]
    assert queued.upload_bytes == 12


async def test_a_job_without_pictures_is_listed_too(rows: Rows) -> None:
    """What was typed is no picture: it counts for neither size nor kind."""
    typed = msgspec.structs.replace(UPLOAD, n=-1, what=What.PARAMETERS, media_type="application/json", size_bytes=9)
    for uploads in ((typed,), ()):
        queued = await rows.jobs.admit(await rows.received(), msgspec.structs.replace(ADMISSION, uploads=uploads))
        assert (queued.media_type, queued.upload_bytes) == ("", 0)
        assert tuple(await rows.custody.uploads(queued.id)) == uploads


@pytest.mark.parametrize("state", ["receiving", "running"])
async def test_copies_are_opened_while_a_job_comes_in_or_runs(rows: Rows, state: str) -> None:
    """Under its fence alone."""
    job = await (rows.received() if state == "receiving" else rows.running())
    await rows.custody.open(job, COPIES)
    assert (await rows.custody.copies(job.id))[-1].ref == "b"
    await refuses_copies(rows, msgspec.structs.replace(job, fence=job.fence - 1))


async def test_no_copy_is_opened_of_a_job_that_waits_or_settles(rows: Rows) -> None:
    """Nobody has it in hands who could have more of it."""
    queued, running = await rows.queued(), await rows.running()
    settling = await rows.jobs.begin_settling(running, Outcome.CANCELED, owner=uuid4())
    for job in (queued, settling):
        await refuses_copies(rows, job)


async def refuses_copies(rows: Rows, job: Job) -> None:
    before = await rows.custody.copies(job.id)
    with pytest.raises(IllegalTransition):
        await rows.custody.open(job, COPIES)
    assert await rows.custody.copies(job.id) == before

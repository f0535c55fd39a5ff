"""What comes in whole becomes one job; what does not leaves nothing, and its id can be used again."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import msgspec
import pytest

from broker.errors import (
    BrokerError,
    JobConflict,
    KeyholderUnavailable,
    StoreUnavailable,
    UnsupportedImage,
    UploadIncomplete,
    UploadSuperseded,
    UploadTooLarge,
)
from broker.jobs import Job
from broker.lease import Lease
from broker.services import Services
from broker.settings import Settings
from broker.store.job_values import Admission
from broker.store.jobs import JobStore
from broker.submission import Submission
from tests.lifecycle import blobs, count, eventually, final, is_empty, keys_held, refs
from tests.processes import lethe_process
from tests.stack import (
    body_of,
    keyholder_of,
    pretend_worker,
    running_services,
    submission,
    upload_bytes,
    watch_puts,
)


async def broken_off() -> AsyncIterator[bytes]:
    yield upload_bytes(200_000)
    raise ConnectionResetError


async def stalled() -> AsyncIterator[bytes]:
    yield upload_bytes(200_000)
    await asyncio.Event().wait()


async def too_large() -> AsyncIterator[bytes]:
    yield upload_bytes(64)
    while True:
        yield os.urandom(1 << 20)


async def no_image() -> AsyncIterator[bytes]:
    yield bytes(200_000)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (broken_off, UploadIncomplete),
        (stalled, UploadIncomplete),
        (too_large, UploadTooLarge),
        (no_image, UnsupportedImage),
    ],
)
async def test_a_body_that_is_refused_leaves_nothing(
    services: Services, settings: Settings, body: type[AsyncIterator[bytes]], error: type[BrokerError]
) -> None:
    """Neither row, custody, blob nor key is left within seconds, and the same id can be sent again."""
    made, keys = await submission(services), await keys_held(services)

    with pytest.raises(error):
        await services.intake.submit(made, body())

    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)
    job, is_new = await services.intake.submit(made, body_of(upload_bytes()))
    assert (job.state, is_new) == ("queued", True)


async def test_the_same_id_can_be_sent_again_at_once(services: Services, settings: Settings) -> None:
    """Whoever was cut off need not wait for the clearing up: the next upload takes over, and settles everything."""
    made = await submission(services)
    with pytest.raises(UploadIncomplete):
        await services.intake.submit(made, broken_off())

    job, _ = await services.intake.submit(made, body_of(upload_bytes()))
    await services.cancellation.delete(job)

    assert (await final(services, job)).state == "canceled"
    await eventually(lambda: _has_no_blob(settings))


async def _has_no_blob(settings: Settings) -> bool:
    return not blobs(settings)


async def test_an_id_that_was_let_go_of_meanwhile_is_free(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused upload is undone between two looks at its row: the next one is no conflict."""
    made = await submission(services)
    receive = JobStore.receive

    async def taken_just_now(self: JobStore, *args: object) -> Job | None:
        del self, args
        monkeypatch.setattr(JobStore, "receive", receive)
        return None

    monkeypatch.setattr(JobStore, "receive", taken_just_now)
    job, is_new = await services.intake.submit(made, body_of(upload_bytes()))

    assert (job.state, is_new) == ("queued", True)


async def test_a_request_that_is_cancelled_leaves_nothing(services: Services, settings: Settings) -> None:
    """A server that drops the request in the middle of the body undoes it all the same."""
    made, keys = await submission(services), await keys_held(services)
    sending = asyncio.create_task(services.intake.submit(made, stalled()))
    await eventually(lambda: count(settings, "jobs"))

    sending.cancel()

    with pytest.raises(asyncio.CancelledError):
        await sending
    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)


async def test_the_rows_come_before_the_bytes(services: Services, settings: Settings) -> None:
    """While the body comes in, its blob, key and process stand in custody, and no key is in the keyholder yet."""
    made, keys = await submission(services), await keys_held(services)
    sending = asyncio.create_task(services.intake.submit(made, stalled()))
    await eventually(lambda: count(settings, "jobs"))

    job = await services.stores.jobs.find(made.user_id, made.public_id)
    assert job is not None
    copies = await services.stores.custody.copies(job.id)
    assert sorted(copy.holder for copy in copies if copy.is_open) == ["blob", "key", "process"]
    assert await keys_held(services) == keys
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_the_same_bytes_again_are_the_same_job(services: Services, settings: Settings) -> None:
    """A repeated PUT answers with the job that it made, and makes none."""
    made, body = await submission(services), upload_bytes()
    first, is_new = await services.intake.submit(made, body_of(body))
    again, is_new_again = await services.intake.submit(made, body_of(body[:99], body[99:]))

    assert (is_new, is_new_again) == (True, False)
    assert again.id == first.id
    assert await count(settings, "jobs") == len(blobs(settings)) == 1


async def test_other_bytes_under_a_used_id_are_a_conflict(services: Services, settings: Settings) -> None:
    """Other bytes, another operation, other parameters: refused, and the job stays as it was."""
    made, body = await submission(services), upload_bytes()
    job, _ = await services.intake.submit(made, body_of(body))
    others: list[tuple[Submission, bytes]] = [
        (made, upload_bytes()),
        (made, body[:-1]),
        (msgspec.structs.replace(made, operation="upscale", parameters={"scale": 2, "quality": "fast"}), body),
    ]
    for other, other_body in others:
        with pytest.raises(JobConflict):
            await services.intake.submit(other, body_of(other_body))
    assert (await services.stores.jobs.get(job.id)) is not None
    assert await count(settings, "jobs") == 1


async def test_a_repeated_upload_is_bounded_too(services: Services) -> None:
    """A known id is no way past the limits: endless, stalled and broken bodies end as for a new one."""
    made = await submission(services)
    await services.intake.submit(made, body_of(upload_bytes()))
    for body, error in ((too_large, UploadTooLarge), (stalled, UploadIncomplete), (broken_off, UploadIncomplete)):
        with pytest.raises(error):
            await services.intake.submit(made, body())


async def test_of_two_at_once_the_later_takes_over(services: Services, settings: Settings) -> None:
    """One job; the earlier stream is cut at once and leaves nothing of its own."""
    made, keys = await submission(services), await keys_held(services)
    earlier = asyncio.create_task(services.intake.submit(made, stalled()))
    await eventually(lambda: count(settings, "jobs"))

    body = upload_bytes()
    job, is_new = await services.intake.submit(made, body_of(body))

    assert is_new
    async with asyncio.timeout(0.8):  # before its idle time is up
        with pytest.raises(UploadSuperseded):
            await earlier
    await eventually(lambda: _has_copies(services, job, open_copies=2))
    assert await count(settings, "jobs") == len(blobs(settings)) == 1
    assert await keys_held(services) == keys + 1
    again, _ = await services.intake.submit(made, body_of(body))
    assert again.id == job.id


async def _has_copies(services: Services, job: Job, *, open_copies: int) -> bool:
    found = await services.stores.jobs.get(job.id)
    return found is not None and found.open_copies == open_copies


async def test_many_at_once_make_one_job(services: Services, settings: Settings) -> None:
    """Eight whole uploads race under one id: one job, one blob, one key, and nobody gets a wrong answer."""
    made, body, keys = await submission(services), upload_bytes(), await keys_held(services)

    answers = await asyncio.gather(
        *(services.intake.submit(made, body_of(body[:999], body[999:])) for _ in range(8)), return_exceptions=True
    )

    jobs = {answer[0].id for answer in answers if isinstance(answer, tuple)}
    assert len(jobs) == 1
    assert all(isinstance(answer, tuple | UploadSuperseded) for answer in answers), answers
    job = await services.stores.jobs.get(jobs.pop())
    assert job is not None
    await eventually(lambda: _has_copies(services, job, open_copies=2))
    assert len(blobs(settings)) == 1
    assert await keys_held(services) == keys + 1


async def test_an_upload_completed_in_the_meantime_is_answered(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other request won between our look and our write: that is a repetition, not a conflict."""
    made, body = await submission(services), upload_bytes()
    receive = JobStore.receive

    async def receive_late(self: JobStore, *args: object) -> Job | None:
        monkeypatch.setattr(JobStore, "receive", receive)
        await services.intake.submit(made, body_of(body))
        return await receive(self, *args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(JobStore, "receive", receive_late)
    job, is_new = await services.intake.submit(made, body_of(body))

    assert (job.state, is_new) == ("queued", False)


async def test_an_unadmitted_key_leaves_nothing(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keyholder took the key and its answer was lost: the key is shredded, and the id is free."""
    made, keys = await submission(services), await keys_held(services)
    put = keyholder_of(services).put

    async def put_unheard(*args: object, **named: object) -> object:
        await put(*args, **named)  # pyright: ignore[reportArgumentType]
        raise KeyholderUnavailable

    monkeypatch.setattr(keyholder_of(services), "put", put_unheard)
    with pytest.raises(KeyholderUnavailable):
        await services.intake.submit(made, body_of(upload_bytes()))

    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)


async def test_a_job_whose_admission_was_not_heard_stands(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres queued it and the answer was lost: the client is told to repeat, and gets that very job."""
    made, body = await submission(services), upload_bytes()
    admit = JobStore.admit

    async def admit_unheard(self: JobStore, job: Job, admission: Admission) -> Job:
        await admit(self, job, admission)
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(JobStore, "admit", admit_unheard)
        with pytest.raises(StoreUnavailable):
            await services.intake.submit(made, body_of(body))
    await services.intake.aclose()

    job, is_new = await services.intake.submit(made, body_of(body))
    assert (job.state, is_new, job.open_copies) == ("queued", False, 2)
    assert await keyholder_of(services).has(bytes.fromhex((await refs(services, job.id, "key"))[0]))


async def test_a_row_whose_making_was_not_heard_goes(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres made the row and the answer was lost: this process, which lives on, finds it with its next renewal."""
    monkeypatch.setattr("broker.intake.UNHEARD_S", 0.2)
    made, keys = await submission(services), await keys_held(services)
    receive = JobStore.receive

    async def receive_unheard(self: JobStore, *args: object) -> Job | None:
        await receive(self, *args)  # pyright: ignore[reportArgumentType]
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(JobStore, "receive", receive_unheard)
        with pytest.raises(StoreUnavailable):
            await services.intake.submit(made, body_of(upload_bytes()))
    assert await count(settings, "jobs") == 1

    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)


async def test_nothing_is_held_when_the_row_says_overwritten(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write that queues the job calls our copy overwritten: by then no key is in our memory, no guard armed."""
    puts = watch_puts(services, monkeypatch)
    admit = JobStore.admit

    async def admit_seen(self: JobStore, job: Job, admission: Admission) -> Job:
        assert puts[0].key != bytes(32)
        assert puts[0].buffer == bytearray(32)
        return await admit(self, job, admission)

    monkeypatch.setattr(JobStore, "admit", admit_seen)
    job, _ = await services.intake.submit(await submission(services), body_of(upload_bytes()))
    assert job.state == "queued"


async def test_a_key_ends_with_the_deadline_of_its_job(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keyholder ends it by itself then, should everybody else be dead; a client's shorter deadline counts."""
    puts = watch_puts(services, monkeypatch)
    for asked_s in (None, 7.0):
        made = await submission(services, start_within_s=asked_s, finish_within_s=asked_s)
        await services.intake.submit(made, body_of(upload_bytes()))

    assert [put.ttl_s for put in puts] == [services.policies.profile.deadlines.finish_within_s, 7]


async def test_nothing_is_taken_in_without_a_lease(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that could not be killed in time holds no key and no plaintext: refused before the first byte."""
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(b"")
        yield upload_bytes()

    monkeypatch.setattr(Lease, "is_valid", property(lambda self: False))
    with pytest.raises(StoreUnavailable):
        await services.intake.submit(await submission(services), body())
    assert (read, await count(settings, "jobs")) == ([], 0)


async def test_a_process_that_may_hold_nothing_cuts_its_streams(services: Services, settings: Settings) -> None:
    """When the lease cannot be renewed every stream ends as a failure of ours, and leaves nothing."""
    made, keys = await submission(services), await keys_held(services)
    sending = asyncio.create_task(services.intake.submit(made, stalled()))
    await eventually(lambda: count(settings, "jobs"))

    assert services.lease.let_go is not None
    await services.lease.let_go()

    async with asyncio.timeout(0.8):
        with pytest.raises(StoreUnavailable):
            await sending
    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)


@pytest.fixture
async def other_broker(settings: Settings) -> AsyncGenerator[Services]:
    async with running_services(settings) as other:
        await pretend_worker(other)
        yield other


async def test_the_later_takes_over_from_another_broker(
    services: Services, other_broker: Services, settings: Settings
) -> None:
    """Two brokers, one id: the word goes through Redis, and the earlier broker cuts its stream."""
    made = await submission(services)
    earlier = asyncio.create_task(services.intake.submit(made, stalled()))
    await eventually(lambda: count(settings, "jobs"))

    job, _ = await other_broker.intake.submit(made, body_of(upload_bytes()))

    async with asyncio.timeout(0.8):
        with pytest.raises(UploadSuperseded):
            await earlier
    await eventually(lambda: _has_copies(services, job, open_copies=2))


async def test_a_broker_killed_while_receiving_leaves_nothing(
    services: Services, settings: Settings, tmp_path: Path
) -> None:
    """Kill -9 in the middle of a body: once its lease has ended any other process destroys what it left."""
    keys = await keys_held(services)
    patient = msgspec.structs.replace(settings, upload_idle_s=60.0)
    with lethe_process(["tests.half_a_body"], patient, tmp_path) as broker:
        await eventually(lambda: _is_receiving(settings), within_s=20)
        assert len(blobs(settings)) == 1
        broker.kill()
        await eventually(lambda: is_empty(services, settings, keys=keys), within_s=20)


async def _is_receiving(settings: Settings) -> bool:
    return await count(settings, "jobs", "state = 'receiving'") == 1 and bool(blobs(settings))

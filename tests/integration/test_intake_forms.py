"""Forms that come to no good end: all that came before goes too, whatever failed, and whoever was away."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.errors import (
    BlobsUnavailable,
    BrokerError,
    JobNotFound,
    KeyholderUnavailable,
    StoreUnavailable,
    UnsupportedImage,
    UploadIncomplete,
    UploadSuperseded,
    UploadTooLarge,
)
from broker.form_errors import InvalidForm, UnexpectedPart, WrongPictureCount
from broker.jobs import Job
from broker.operations import Pictures
from broker.services import Services
from broker.settings import Settings
from broker.store.blobs import BlobStore
from broker.store.custody import CustodyStore
from broker.submission import Submission
from tests.forms import (
    again,
    delivered,
    form_of,
    job_part,
    needing,
    open_studio,
    picture_part,
    send,
    studio_settings,
    typed_submission,
)
from tests.lifecycle import blobs, count, eventually, is_empty, keys_held, run_sql
from tests.stack import body_of, keyholder_of, upload_bytes, watch_puts

Body = Callable[[], AsyncIterator[bytes]]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return studio_settings(settings, tmp_path)


@pytest.fixture(autouse=True)
async def studio(services: Services) -> None:
    await open_studio(services)


async def broken_off() -> AsyncIterator[bytes]:
    yield form_of(job_part(), picture_part(upload_bytes()), picture_part(upload_bytes(200_000)))[:-9_000]
    raise ConnectionResetError


async def cut_short() -> AsyncIterator[bytes]:
    yield form_of(job_part(), picture_part(upload_bytes()), picture_part(upload_bytes(200_000)))[:-9_000]


async def stalled() -> AsyncIterator[bytes]:
    async for chunk in cut_short():
        yield chunk
    await asyncio.Event().wait()


async def too_large() -> AsyncIterator[bytes]:
    yield form_of(job_part(), picture_part(upload_bytes(24_000_000)))[:-16]
    while True:
        yield b"\r\n--lethe-test\r\n" + picture_part(upload_bytes(24_000_000))


def whole(*parts: Callable[[], bytes]) -> Body:
    return lambda: body_of(form_of(job_part(), *(part() for part in parts)))


def picture(size: int = 5_000, *, name: str = "picture") -> Callable[[], bytes]:
    return lambda: picture_part(upload_bytes(size), name=name)


def no_picture(size: int) -> Callable[[], bytes]:
    return lambda: picture_part(bytes(size))


BROKEN: list[tuple[Body, type[BrokerError]]] = [
    (broken_off, UploadIncomplete),
    (cut_short, UploadIncomplete),
    (stalled, UploadIncomplete),
    (too_large, UploadTooLarge),
    (whole(picture(), picture(25_000_001)), UploadTooLarge),
    (whole(picture(), no_picture(5_000)), UnsupportedImage),
    (whole(picture(), no_picture(0)), UnsupportedImage),
    (whole(picture(), picture(name="other")), UnexpectedPart),
    (whole(picture(), job_part), UnexpectedPart),
    (whole(picture(), lambda: b"garbage"), InvalidForm),
    (whole(*[picture()] * 17), WrongPictureCount),
]


@pytest.mark.parametrize(("body", "error"), BROKEN)
async def test_what_is_not_whole_leaves_nothing(
    services: Services, settings: Settings, body: Body, error: type[BrokerError]
) -> None:
    """Whichever part fails, all that came before goes too, and the same id can be sent again."""
    made, keys = await typed_submission(services), await keys_held(services)

    with pytest.raises(error):
        await services.intake.deliver(made, await delivered(services, body()))

    assert made.texts == bytes(len(made.texts))
    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)
    job, is_new = await send(services, again(made), upload_bytes(), upload_bytes())
    assert (job.state, is_new) == ("queued", True)


async def test_too_few_pictures_leave_nothing(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operation that needs two is not started with one."""
    needing(monkeypatch, Pictures(2, 3))
    made, keys = await typed_submission(services), await keys_held(services)
    with pytest.raises(WrongPictureCount, match="2 to 3 pictures"):
        await send(services, made, upload_bytes())
    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)


async def test_the_rows_come_before_the_bytes(services: Services, settings: Settings) -> None:
    """While the second picture comes in, its blob and key stand in custody; no key is in the keyholder yet."""
    made, keys = await typed_submission(services), await keys_held(services)
    sending = asyncio.create_task(services.intake.deliver(made, await delivered(services, stalled())))
    await eventually(lambda: count(settings, "custody", "what = 'upload' AND holder = 'blob' HAVING count(*) = 2"))

    job = await services.stores.jobs.find(made.user_id, made.public_id)
    assert job is not None
    copies = [copy for copy in await services.stores.custody.copies(job.id) if copy.is_open]
    assert sorted((copy.what.value, copy.holder.value) for copy in copies) == [
        *(("parameters", "blob"), ("parameters", "key")),
        *(("upload", "blob"), ("upload", "blob"), ("upload", "key"), ("upload", "key"), ("upload", "process")),
    ]
    assert await services.stores.custody.uploads(job.id) == []
    assert await keys_held(services) == keys
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)


async def test_of_two_at_once_the_later_takes_over(services: Services, settings: Settings) -> None:
    """The earlier one, in the middle of its second picture, is cut and leaves nothing of its own."""
    made, keys = await typed_submission(services), await keys_held(services)
    earlier = asyncio.create_task(services.intake.deliver(made, await delivered(services, stalled())))
    await eventually(lambda: count(settings, "custody", "what = 'upload' AND holder = 'blob' HAVING count(*) = 2"))

    job, is_new = await send(services, again(made), upload_bytes(), upload_bytes())

    async with asyncio.timeout(0.8):
        with pytest.raises(UploadSuperseded):
            await earlier
    assert is_new
    await eventually(lambda: _has_open(services, job, copies=6))
    assert await keys_held(services) == keys + 3
    assert len(blobs(settings)) == 3


async def _has_open(services: Services, job: Job, *, copies: int) -> bool:
    found = await services.stores.jobs.get(job.id)
    return found is not None and found.open_copies == copies


async def test_a_key_that_is_not_taken_leaves_nothing(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first keys are in the keyholder when it falls silent: they are shredded, and the rest never comes."""
    made, keys, asked = await typed_submission(services), await keys_held(services), 0
    put = keyholder_of(services).put

    async def put_twice(*args: object, **named: object) -> object:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise KeyholderUnavailable
        return await put(*args, **named)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(keyholder_of(services), "put", put_twice)
    with pytest.raises(KeyholderUnavailable):
        await send(services, made, upload_bytes(), upload_bytes())
    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)


async def test_a_custody_row_that_was_not_heard_goes_with_the_rest(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres opened the second picture's rows and the answer was lost: nothing is left all the same."""
    made, keys, open_rows = await typed_submission(services), await keys_held(services), CustodyStore.open

    async def open_unheard(self: CustodyStore, *args: object) -> None:
        await open_rows(self, *args)  # pyright: ignore[reportArgumentType]
        raise StoreUnavailable

    monkeypatch.setattr(CustodyStore, "open", open_unheard)
    with pytest.raises(StoreUnavailable):
        await send(services, made, upload_bytes(), upload_bytes())
    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)


async def test_a_process_without_lease_waits_for_no_store(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres is away in the middle of a form: the plaintext is let go at once, not when Postgres answers."""
    made, keys, is_asked, open_rows = await typed_submission(services), await keys_held(services), asyncio.Event(), None
    open_rows, answer = CustodyStore.open, asyncio.Event()

    async def open_late(self: CustodyStore, *args: object) -> None:
        is_asked.set()
        await answer.wait()
        await open_rows(self, *args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(CustodyStore, "open", open_late)
    sending = asyncio.create_task(send(services, made, upload_bytes(), upload_bytes()))
    await is_asked.wait()
    assert services.lease.let_go is not None
    await services.lease.let_go()

    async with asyncio.timeout(0.5):
        with pytest.raises(StoreUnavailable):
            await sending
    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)
    answer.set()  # too late: the fence is another one
    await asyncio.sleep(0)
    assert await is_empty(services, settings, keys=keys)


async def silent(store: BlobStore, name: str) -> None:
    raise BlobsUnavailable


@asynccontextmanager
async def undone_while_silent(services: Services) -> AsyncGenerator[Submission]:
    """A form that broke off after its first picture, and as much of it undone as a silent store lets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlobStore, "destroy", silent)
        made = await typed_submission(services)
        with pytest.raises(UploadIncomplete):
            await services.intake.deliver(made, await delivered(services, broken_off()))
        await services.intake.aclose()
        yield made


async def test_what_a_silent_store_was_left_with_goes_when_it_is_back(services: Services, settings: Settings) -> None:
    """What was typed and the first picture lie in a store that deletes nothing: rows know of them until they go."""
    keys = await keys_held(services)
    async with undone_while_silent(services):
        assert len(blobs(settings)) == 2
        assert await keys_held(services) <= keys

    await services.sweep.records()
    assert blobs(settings) == []
    await run_sql(settings, "UPDATE jobs SET settling_until = now() - interval '1 second'")
    await services.sweep.once()

    await eventually(lambda: is_empty(services, settings, keys=keys), within_s=5)


async def test_an_id_is_free_while_a_silent_store_has_something_of_it(services: Services, settings: Settings) -> None:
    """Until then it is no job to whoever deletes it, and becomes one when it is sent again; only the old blobs go."""
    keys = await keys_held(services)
    async with undone_while_silent(services) as made:
        for _ in range(2):
            left = await services.stores.jobs.find(made.user_id, made.public_id)
            assert left is not None
            assert (left.state, left.open_copies) == ("receiving", 0)
            with pytest.raises(JobNotFound):
                await services.cancellation.delete(left)
        job, is_new = await send(services, again(made), upload_bytes(), upload_bytes())
        assert (job.state, is_new, len(blobs(settings))) == ("queued", True, 5)

    await services.sweep.records()
    assert len(blobs(settings)) == 3
    verdict = await services.cancellation.delete(job)
    assert (verdict.job.state, blobs(settings)) == ("canceled", [])
    assert await keys_held(services) <= keys
    assert await services.stores.receipts.latest(job.id)


async def test_every_blob_has_a_key_of_its_own(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pictures and what was typed: three keys, none of them alike, none of them blank."""
    puts = watch_puts(services, monkeypatch)
    for _ in range(2):
        await send(services, await typed_submission(services), upload_bytes(), upload_bytes())

    keys = {put.key for put in puts}
    assert len(keys) == len(puts) == 6
    assert bytes(32) not in keys

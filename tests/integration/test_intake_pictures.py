"""Several pictures, and what a user typed: each under a key of its own, whole together or not at all."""

from pathlib import Path

import msgspec
import pytest

from broker.crypto.chunked import CHUNK_BYTES, KEY_BYTES, Decryptor
from broker.custody import What
from broker.errors import (
    JobConflict,
)
from broker.incoming import Delivery
from broker.jobs import Job, StoredUpload
from broker.operations import read_texts
from broker.services import Services
from broker.settings import Settings
from tests.forms import PROMPT, again, open_studio, send, studio_settings, typed_submission
from tests.lifecycle import blobs, count, final, keys_held, reread
from tests.stack import body_of, keyholder_of, pretend_worker, upload_bytes


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return studio_settings(settings, tmp_path)


@pytest.fixture(autouse=True)
async def studio(services: Services) -> None:
    await open_studio(services)


async def opened(services: Services, job: Job, upload: StoredUpload) -> bytes:
    """Open an upload as a worker would."""
    key = bytearray(KEY_BYTES)
    assert await keyholder_of(services).open_into(upload.key_id, key, fence=job.fence) == "ok"
    decryptor, plain, at = Decryptor(key, context=upload.blob.encode()), bytearray(upload.size_bytes + CHUNK_BYTES), 0
    with memoryview(plain) as view:
        async for chunk in services.stores.blobs.read(upload.blob):
            at += decryptor.update(chunk, view[at:])
        at += decryptor.finish(view[at:])
    return bytes(plain[:at])


async def test_every_picture_and_the_prompt_can_be_opened_by_themselves(services: Services, settings: Settings) -> None:
    """In order, each out of its own blob under its own key; the buffer of what was typed is overwritten."""
    made, keys = await typed_submission(services), await keys_held(services)
    pictures = [upload_bytes(size) for size in (400_000, 700, 90_000)]

    job, is_new = await send(services, made, *pictures)

    uploads = await services.stores.custody.uploads(job.id)
    assert (is_new, [upload.n for upload in uploads]) == (True, [-1, 0, 1, 2])
    assert [upload.what for upload in uploads] == [What.PARAMETERS, *[What.UPLOAD] * 3]
    assert read_texts(await opened(services, job, uploads[0])) == {"prompt": PROMPT}
    assert [await opened(services, job, upload) for upload in uploads[1:]] == pictures
    assert [upload.size_bytes for upload in uploads[1:]] == [len(picture) for picture in pictures]
    assert (job.media_type, job.upload_bytes) == ("image/jpeg", sum(map(len, pictures)))
    assert len({upload.key_id for upload in uploads}) == len(set(blobs(settings))) == 4
    assert await keys_held(services) == keys + 4
    assert made.texts == bytes(len(made.texts))
    assert job.parameters == {"count": 1}


async def test_each_upload_is_in_custody_and_dies_with_the_job(services: Services, settings: Settings) -> None:
    """Eight rows of ours and the broker's own; once the job is final all are closed, and nothing is left."""
    keys = await keys_held(services)
    job, _ = await send(services, await typed_submission(services), *(upload_bytes() for _ in range(3)))

    copies = await services.stores.custody.copies(job.id)
    assert sorted(copy.what for copy in copies if copy.is_open) == ["parameters"] * 2 + ["upload"] * 6
    assert [copy.evidence for copy in copies if copy.holder == "process"] == ["overwritten"]
    assert (await reread(services, job)).open_copies == 8
    await services.cancellation.delete(job)

    assert (await final(services, job)).state == "canceled"
    assert (blobs(settings), await keys_held(services)) == ([], keys)


async def test_a_prompt_alone_is_a_job(services: Services, settings: Settings) -> None:
    """Without a picture only what was typed is in custody, and it dies with the job as well."""
    keys = await keys_held(services)
    made = await typed_submission(services, operation="generate", parameters={"count": 1, "size": "square"})
    job, is_new = await services.intake.deliver(made, Delivery(services.intake.bounded(body_of()), None))

    copies = await services.stores.custody.copies(job.id)
    assert {copy.what for copy in copies} == {What.PARAMETERS}
    assert (is_new, job.media_type, job.upload_bytes) == (True, "", 0)
    assert (await reread(services, job)).open_copies == 2
    assert await services.stores.jobs.claim(job.id, await pretend_worker(services, lease_s=0.1)) is not None
    await services.cancellation.delete(job)
    assert (await final(services, job)).state == "canceled"
    assert (blobs(settings), await keys_held(services)) == ([], keys)


async def test_a_prompt_goes_with_a_picture_that_is_put(services: Services) -> None:
    """PUT and POST share one path."""
    picture = upload_bytes()
    job, _ = await services.intake.submit(await typed_submission(services), body_of(picture))
    uploads = await services.stores.custody.uploads(job.id)
    assert read_texts(await opened(services, job, uploads[0])) == {"prompt": PROMPT}
    assert await opened(services, job, uploads[1]) == picture


async def test_the_same_again_is_the_same_job(services: Services, settings: Settings) -> None:
    """Same pictures in the same order, same words; anything else under the id is a conflict, and changes nothing."""
    made, one, other = await typed_submission(services), upload_bytes(), upload_bytes()
    job, _ = await send(services, made, one, other)

    found, is_new = await send(services, again(made), one, other)
    assert (found.id, is_new) == (job.id, False)
    for pictures, prompt in (
        ((other, one), PROMPT),
        ((one,), PROMPT),
        ((one + other,), PROMPT),
        ((one, other, one), PROMPT),
        ((one, other), PROMPT + "!"),
        ((one[:-1], one[-1:] + other), PROMPT),
    ):
        with pytest.raises(JobConflict):
            await send(services, again(made, prompt), *pictures)
    with pytest.raises(JobConflict):
        await send(services, msgspec.structs.replace(made, texts=bytearray()), one, other)
    assert await count(settings, "jobs") == 1
    assert len(blobs(settings)) == 3

"""A worker opens what a job was given: with the key for as long as that takes, and only while the job is its own."""

import pytest

from broker.errors import IllegalTransition
from broker.jobs import Job
from broker.services import Services
from broker.store.keys import OpenAnswer
from tests.lifecycle import claimed_job
from tests.stack import keyholder_of
from workers.opening import open_pictures
from workers.plaintext import Plaintext


async def opened(services: Services, job: Job) -> int:
    """Open the job's pictures and let them go; return how many bytes they had."""
    uploads = await services.stores.custody.uploads(job.id)
    with Plaintext() as plaintext:
        pictures = await open_pictures(services.stores, job, uploads, plaintext)
        return sum(picture.size_bytes for picture in pictures)


async def test_a_key_is_overwritten_once_it_was_used(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The buffer into which the keyholder's answer came holds a key while it is there, and zeros afterwards."""
    buffers: list[tuple[bytes, bytearray]] = []
    open_into = keyholder_of(services).open_into

    async def open_seen(key_id: bytes, buffer: bytearray, *, fence: int) -> OpenAnswer:
        answer = await open_into(key_id, buffer, fence=fence)
        buffers.append((bytes(buffer), buffer))
        return answer

    monkeypatch.setattr(keyholder_of(services), "open_into", open_seen)
    assert await opened(services, await claimed_job(services)) == 5_000

    ((key, buffer),) = buffers
    assert any(key)
    assert buffer == bytes(32)


async def test_who_was_overtaken_opens_nothing_and_decides_nothing(services: Services) -> None:
    """`stale` is no lost key: the job goes on elsewhere, and whoever was overtaken has no say in how it ends."""
    job = await claimed_job(services)
    (upload,) = await services.stores.custody.uploads(job.id)
    answer = await keyholder_of(services).open_into(upload.key_id, bytearray(32), fence=job.fence + 1)
    assert answer is OpenAnswer.OK

    with pytest.raises(IllegalTransition):
        await opened(services, job)

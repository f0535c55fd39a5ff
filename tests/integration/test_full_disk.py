"""A disk that takes no more: uploads are refused whole, nothing is left, and it works again when there is room."""

import resource
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from broker.errors import BlobsUnavailable
from broker.services import Services
from broker.settings import Settings
from tests.lifecycle import eventually, is_empty, keys_held
from tests.stack import body_of, submission, upload_bytes


@contextmanager
def no_file_beyond(limit_bytes: int) -> Generator[None]:
    """The kernel refuses what any file of this process would have beyond this, in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("size", "limit_bytes"), [(2_000_000, 600_000), (2_000_000, 1_000), (200_000, 1_000)])
async def test_a_full_disk_refuses(services: Services, settings: Settings, size: int, limit_bytes: int) -> None:
    """503 in the middle of a large upload and of a small one; no row, key, blob or draft stays; the id is free."""
    held = await keys_held(services)
    again = await submission(services)
    body = upload_bytes(size)
    pieces = [body[at : at + 65_536] for at in range(0, size, 65_536)]
    with no_file_beyond(limit_bytes):
        with pytest.raises(BlobsUnavailable) as refused:
            await services.intake.submit(again, body_of(*pieces))
        assert refused.value.status == 503

        await eventually(lambda: is_empty(services, settings, keys=held))
    job, is_new = await services.intake.submit(again, body_of(*pieces))
    assert is_new
    assert job.state == "queued"

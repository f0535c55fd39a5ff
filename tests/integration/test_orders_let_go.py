"""Once a job is final its worker holds no order of it any more, and none that only waits for the cycle collector."""

import gc
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import httpx
import msgspec
import pytest

from broker.forensics.provider import CONFIG, HeldProvider, Reply, held_provider
from broker.jobs import Job, JobState
from broker.operations import parted
from broker.services import Services
from broker.settings import Settings
from tests.checks import plant
from tests.lifecycle import eventually, reread
from tests.relay import ended, photo_bytes, relaying, sent

MARKER = "a prompt that stands nowhere else"


@pytest.fixture
def no_collector() -> Generator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def ordered(services: Services, provider: HeldProvider, **more: object) -> Job:
    provider.expect(MARKER.encode())
    plain, texts = parted("edit", {"prompt": plant(MARKER), "count": 1})
    job = await sent(services, photo_bytes(), operation="edit", parameters=plain, texts=texts, **more)
    await provider.arrived(MARKER.encode())
    return job


def orders(provider: HeldProvider) -> Sequence[httpx.Request]:
    """Every request with a body to the provider that is in memory still; broker and worker are this process here."""
    found = [one for one in gc.get_objects() if isinstance(one, httpx.Request)]
    return [one for one in found if str(one.url).startswith(provider.url) and one.content]


@pytest.mark.parametrize("end", ["done", "refused", "canceled", "expired"])
async def test_a_final_job_has_no_order_in_memory(
    settings: Settings, tmp_path: Path, no_collector: None, end: str
) -> None:
    """Answered, refused, cancelled under way or out of time: what was sent is gone when the job is final."""
    async with held_provider(photo_bytes()) as provider:
        config = CONFIG.replace("$URL", provider.url)
        async with relaying(settings, tmp_path, config) as services:
            within = {"start_within_s": 3, "finish_within_s": 3} if end == "expired" else {}
            job = await ordered(services, provider, **within)
            assert orders(provider)  # what is under way can be found
            if end == "canceled":
                await services.cancellation.delete(await reread(services, job))
            elif end != "expired":
                provider.end(MARKER.encode(), Reply(end))
            final = await ended(services, job)
            assert not orders(provider), final.state


async def test_an_order_is_gone_before_anybody_is_told(
    settings: Settings, dsn: str, tmp_path: Path, no_collector: None
) -> None:
    """A worker that was told to stop says that it holds nothing only when that is so, however long saying it takes."""
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(held_provider(photo_bytes()))
        config = CONFIG.replace("$URL", provider.url)
        services = await stack.enter_async_context(relaying(settings, tmp_path, config))
        job = await reread(services, await ordered(services, provider))
        postgres = await asyncpg.connect(dsn)
        stack.push_async_callback(postgres.close)
        async with postgres.transaction():
            # Nothing of the job can be written down meanwhile.
            await postgres.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", job.id)
            decided = msgspec.structs.replace(job, fence=job.fence + 1, state=JobState.SETTLING)
            await services.changes.publish(decided)
            await eventually(lambda: _none(provider))
        await services.cancellation.delete(await reread(services, job))
        await ended(services, job)


async def _none(provider: HeldProvider) -> bool:
    return not orders(provider)

"""Jobs at an emulated Replicate, through a real relay worker: what is sent, paid, kept and stated."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from broker.attempts import AttemptState
from broker.jobs import JobState
from broker.services import Services
from broker.settings import Settings
from broker.sniff import ImageKind
from tests.emulators.base import running
from tests.emulators.replicate import SECRET, ReplicateEmulator
from tests.images_corpus import marked
from tests.lifecycle import blobs
from tests.relay import (
    SECRET_VARIABLE,
    attempts,
    ended,
    receipt,
    relaying,
    replicate,
    route,
    sent,
    words,
)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Generator[ReplicateEmulator]:
    """An emulated Replicate."""
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    made = ReplicateEmulator()
    made.states = []  # done at the first question
    with running(made):
        yield made


@pytest.fixture
async def services(settings: Settings, tmp_path: Path, provider: ReplicateEmulator) -> AsyncGenerator[Services]:
    config = replicate(provider.url) + route("upscale", "[{ replicate = 1 }]")
    async with relaying(settings, tmp_path, config) as services:
        yield services


async def test_a_job_is_done_at_a_provider_and_its_receipt_says_what_is_there(
    services: Services, provider: ReplicateEmulator, settings: Settings
) -> None:
    """One order, one charge, three custody rows at the provider, each with its documented time; the output is kept."""
    job = await ended(services, await sent(services))

    assert (job.state, job.charged, job.provider_copies) == (JobState.SUCCEEDED, True, "expires")
    assert len(provider.requests("order")) == 1
    (attempt,) = await attempts(services, job)
    assert (attempt.state, attempt.provider, attempt.is_estimate) == (AttemptState.SUCCEEDED, "replicate", False)
    assert job.cost_usd == attempt.cost_usd == pytest.approx(0.00125)
    assert await words(services, job) == {"upload": "expires_by", "output": "expires_by", "record": "expires_by"}
    stated = await receipt(services, job)
    assert (stated.exposure, stated.provider_copies, stated.revision) == ("ephemeral", "expires", 1)
    assert {copy.provider for copy in stated.copies if copy.domain == "provider"} == {"replicate"}
    assert all(copy.until for copy in stated.copies if copy.domain == "provider")
    assert len(blobs(settings)) == 1, "the output alone"


async def test_what_leaves_is_a_clean_picture_and_a_fresh_id(services: Services, provider: ReplicateEmulator) -> None:
    """No metadata, no user, no job id, no token; the secret goes to the provider's API alone."""
    job = await ended(services, await sent(services, marked(ImageKind.JPEG)))

    assert job.state is JobState.SUCCEEDED
    seen = provider.bytes_seen
    for forbidden in (job.user_id, str(job.id), job.id.hex, str(job.public_id), job.public_id.hex, "LETHE-MARKER"):
        assert forbidden.encode() not in seen
    assert all("authorization" not in request.headers for request in provider.requests("output"))
    assert provider.requests("output"), "the output was fetched"

"""Jobs at an emulated Replicate, through a real relay worker: what is sent, paid, kept and stated."""

import base64
import json
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from uuid import UUID

import pytest

from broker.attempts import AttemptState
from broker.fleet import Fleet
from broker.jobs import JobState
from broker.routing import Needs
from broker.services import Services
from broker.settings import Settings
from broker.sniff import ImageKind
from policies.base import Facts, ProviderTerms, RefusalCode, Refuse
from policies.registry import Policies
from tests.emulators.replicate import ReplicateEmulator
from tests.images_corpus import marked
from tests.lifecycle import blobs
from tests.relay import (
    attempts,
    emulated_replicate,
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
    with emulated_replicate(monkeypatch) as made:
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
    (given,) = [json.loads(request.body)["input"]["image"] for request in provider.requests("order")]
    # As it is read over there: in the base64 of a data URI no marker would be seen.
    picture = base64.b64decode(given.removeprefix("data:image/jpeg;base64,"), validate=True)
    assert picture.startswith(b"\xff\xd8")
    assert b"LETHE-MARKER" in marked(ImageKind.JPEG)
    seen = provider.bytes_seen + picture
    for forbidden in (str(job.user_id), str(job.id), job.id.hex, str(job.public_id), job.public_id.hex, "LETHE-MARKER"):
        assert forbidden.encode() not in seen
    assert all("authorization" not in request.headers for request in provider.requests("output"))
    assert provider.requests("output"), "the output was fetched"


async def test_the_policies_are_asked_again_before_a_picture_leaves(
    services: Services, provider: ReplicateEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever chose the provider has asked before; what opens the picture asks for itself, and sends nothing."""
    chosen = await sent(services)

    monkeypatch.setattr(Fleet, "candidates", the_one_provider)
    monkeypatch.setattr(Policies, "disclose", refuse_everything)
    job = await ended(services, chosen)

    assert (job.state, job.code) == (JobState.FAILED, "refused")
    assert not provider.requests("order")
    assert not provider.requests("upload")
    assert await words(services, job) == {}


async def the_one_provider(self: Fleet, needs: Needs, *, job_id: UUID) -> list[str]:
    """What was chosen while it was allowed."""
    return ["replicate"]


def refuse_everything(self: Policies, facts: Facts, terms: ProviderTerms) -> Refuse:
    """What a profile says from now on."""
    return Refuse(code=RefusalCode.REFUSED, reason="not any more")

"""Outputs of providers on their way in: fetched from where they may be, cleaned like uploads, or refused."""

from collections.abc import AsyncGenerator, Generator
from functools import partial
from pathlib import Path

import pytest

from broker.jobs import JobState
from broker.services import Services
from broker.settings import Settings
from broker.sniff import ImageKind
from providers.download import DownloadRules
from tests.emulators.base import LOST, Answer, Scripted, running
from tests.emulators.replicate import SECRET, ReplicateEmulator
from tests.images_corpus import marked
from tests.lifecycle import blobs
from tests.relay import SECRET_VARIABLE, attempts, ended, photo_bytes, relaying, replicate, route, sent, words
from tests.videos_corpus import marked_mp4
from workers import adapters, outside


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Generator[ReplicateEmulator]:
    """An emulated Replicate; outputs that do not come are asked for again soon."""
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    monkeypatch.setattr(outside, "FETCH_AGAIN_S", (0.05, 0.05))
    monkeypatch.setattr(adapters, "DownloadRules", partial(DownloadRules, max_bytes=1_000_000))
    made = ReplicateEmulator()
    made.states = []
    with running(made):
        yield made


@pytest.fixture
async def services(settings: Settings, tmp_path: Path, provider: ReplicateEmulator) -> AsyncGenerator[Services]:
    """A broker and a relay worker."""
    config = replicate(provider.url) + route("upscale", "[{ replicate = 1 }]", tries=1)
    async with relaying(settings, tmp_path, config) as services:
        yield services


def served(body: bytes, status: int = 200, **headers: str) -> Scripted:
    """What the next download gets."""
    return Scripted(answer=Answer(status=status, body=body, headers=headers))


PICTURE = photo_bytes(128, 96)
PASSING = {
    "slow": [Scripted(answer=Answer(body=PICTURE, slow_s=1.0))],
    "broken off": [LOST, Scripted(answer=Answer(body=PICTURE, is_cut=True))],
    "expired": [served(b"", 404)],
    "server error": [served(b"", 500)],
}
REFUSED = {
    "abroad": served(b"", 302, location="https://evil.example/out.png"),
    "to our own network": served(b"", 302, location="http://169.254.169.254/latest"),
    "oversized": served(bytes(1_000_001)),
    "no picture": served(b"<html>not here</html>"),
    "cut picture": served(PICTURE[: len(PICTURE) // 2]),
    "video": served(marked_mp4()),
    "packed": Scripted(answer=Answer(body=PICTURE, headers={"content-encoding": "gzip"})),
}


@pytest.mark.parametrize("name", PASSING)
async def test_an_output_that_was_paid_for_is_asked_for_again(
    services: Services, provider: ReplicateEmulator, name: str
) -> None:
    """What passes by itself costs no second order: the provider is asked for a fresh address, and the output comes."""
    provider.next("output", *PASSING[name])

    job = await ended(services, await sent(services))

    assert (job.state, job.charged) == (JobState.SUCCEEDED, True)
    assert len(provider.requests("order")) == 1


@pytest.mark.parametrize("name", REFUSED)
async def test_an_output_that_may_not_come_in_fails_the_attempt(
    services: Services, provider: ReplicateEmulator, settings: Settings, name: str
) -> None:
    """No success without a clean output: `bad_output`, not charged, nothing kept, and the receipt stays honest."""
    provider.next("output", *[REFUSED[name]] * 3)

    job = await ended(services, await sent(services))

    assert (job.state, job.code, job.charged) == (JobState.FAILED, "bad_output", False)
    assert set((await words(services, job)).values()) == {"expires_by"}
    assert not blobs(settings)


async def test_an_output_is_cleaned_like_an_upload(
    services: Services, provider: ReplicateEmulator, settings: Settings
) -> None:
    """Metadata that a provider writes into a picture does not reach the phone."""
    dirty = marked(ImageKind.PNG)
    assert b"LETHE-MARKER" in dirty
    provider.next("output", served(dirty))

    job = await ended(services, await sent(services))

    assert job.state is JobState.SUCCEEDED
    (output,) = await services.stores.custody.outputs(job.id)
    assert output.media_type == "image/jpeg"
    assert output.size_bytes != len(dirty)


async def test_a_provider_s_success_without_an_output_costs_what_it_says(
    services: Services, provider: ReplicateEmulator
) -> None:
    """The provider is paid, the user is not charged, and the job object shows what it cost."""
    provider.ending = {"output": None}

    job = await ended(services, await sent(services))

    assert (job.state, job.code, job.charged) == (JobState.FAILED, "bad_output", False)
    assert job.cost_usd > 0
    assert [attempt.kind for attempt in await attempts(services, job)] == ["bad_output"]

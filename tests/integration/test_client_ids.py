"""Providers that know an attempt by our id: an order that was lost on the way is sent again, and is the same order."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import ClassVar

import pytest

from broker.jobs import JobState
from broker.services import Services
from broker.settings import Settings
from providers.base import Handle, Reporter, Setup, Snapshot, Task, Terms
from providers.failures import FailureKind, ProviderFailure
from providers.http import Http
from providers.inline import Inline
from providers.registry import ADAPTERS
from tests.emulators.base import LOST, LOST_AFTER_WORK, Scripted, running
from tests.emulators.cog import ANSWERS, CogEmulator
from tests.lifecycle import eventually
from tests.processes import lethe_process
from tests.relay import attempts, ended, receipt, relaying, route, running_worker, sent, settings_with, theirs
from tests.stack import running_services

COG = """
[provider.cog]
adapter = "cog"
base_url = "{url}"
exposure = "local"
concurrency = 1

[provider.cog.operation.upscale]
input = {{ image = "$image", scale = "$scale:2" }}
output = "/output"
"""


@pytest.fixture
def cog() -> Generator[CogEmulator]:
    """An emulated Cog container."""
    made = CogEmulator()
    with running(made):
        yield made


def config(cog: CogEmulator) -> str:
    return COG.format(url=cog.url) + route("upscale", "[{ cog = 1 }]")


@pytest.fixture
async def services(settings: Settings, tmp_path: Path, cog: CogEmulator) -> AsyncGenerator[Services]:
    """A broker and a relay worker in front of it."""
    async with relaying(settings, tmp_path, config(cog)) as services:
        yield services


@pytest.mark.parametrize("lost", [LOST, LOST_AFTER_WORK])
async def test_a_lost_order_is_sent_again_under_its_id(services: Services, cog: CogEmulator, lost: Scripted) -> None:
    """The connection breaks: the same attempt is ordered again, nothing is uncertain, the user is charged once."""
    cog.next("order", lost)

    job = await ended(services, await sent(services))

    assert (job.state, job.charged) == (JobState.SUCCEEDED, True)
    (attempt,) = await attempts(services, job)
    assert {request.path for request in cog.requests("order")} == {f"/predictions/{attempt.id}"}
    assert len(cog.requests("order")) == 2


async def test_what_is_ours_to_run_leaves_nothing_behind(services: Services) -> None:
    """A container of our own keeps nothing: its rows expire with the answer, and the exposure stays local."""
    job = await ended(services, await sent(services))

    assert (job.exposure, job.provider_copies) == ("local", "expires")
    assert {copy.evidence for copy in await theirs(services, job)} == {"expires_by"}
    assert (await receipt(services, job)).exposure == "local"


@pytest.mark.parametrize("in_between", [None, "overloaded"])
async def test_after_a_kill_the_same_attempt_is_ordered_again(
    settings: Settings, tmp_path: Path, cog: CogEmulator, in_between: str | None
) -> None:
    """
    kill -9 of the worker while the container works: the next one orders the very same attempt, and only that.

    So also where somebody else has taken the place there in the meantime: what has begun once is no new order.
    """
    cog.run_s = 2.0
    whole = settings_with(settings, tmp_path, config(cog))
    logs = tmp_path / "logs"
    logs.mkdir()
    async with running_services(whole) as services:
        with lethe_process(["workers", "relay"], whole, logs) as worker:
            await eventually(lambda: _is_alive(services), within_s=20)
            job = await sent(services)
            await eventually(lambda: _has_begun(cog))
            worker.kill()
        if in_between is not None:
            cog.next("order", ANSWERS[in_between])
        async with running_worker(services, whole):
            job = await ended(services, job, within_s=30)

        assert (job.state, job.charged, job.crashes) == (JobState.SUCCEEDED, True, 1)
        (attempt,) = await attempts(services, job)
        assert set(cog.started) == {str(attempt.id)}


class Halfway(Inline):
    """Uploads a file, and then cannot reach the provider any more."""

    terms: ClassVar[Terms] = Http.terms

    def __init__(self, setup: Setup) -> None:
        del setup

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        await reporter.accepted(Handle(id="", operation=task.operation, uploads=("file-1",)))
        raise ProviderFailure(FailureKind.NETWORK, "ConnectError", is_unsent=True)


async def test_an_order_that_was_not_sent_does_not_hide_an_upload_that_was(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of an attempt stay when something of it is at the provider, though the order never left."""
    monkeypatch.setitem(ADAPTERS, "http", Halfway)
    table = COG.format(url="https://example.org").replace('"cog"', '"http"').replace('"local"', '"logged"')
    async with relaying(settings, tmp_path, table + route("upscale", "[{ cog = 1 }]", tries=1)) as services:
        job = await ended(services, await sent(services))

        assert (job.state, job.code) == (JobState.FAILED, "provider_unreachable")
        assert {copy.what for copy in await theirs(services, job)} == {"upload", "output", "record"}


async def _has_begun(cog: CogEmulator) -> bool:
    return bool(cog.started)


async def _is_alive(services: Services) -> bool:
    return any("cog" in process.facts.providers for process in await services.stores.processes.alive())

"""One route over in-house workers and a provider outside: jobs move to where they can be done."""

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import pytest

from broker.jobs import JobState
from broker.operations import parse_parameters, parted
from broker.routes import Config
from broker.services import Services
from broker.settings import Settings
from broker.store.processes import Facts, Process
from providers.base import Provider, Reporter, Snapshot, Task, Terms
from providers.failures import FailureKind, ProviderFailure
from tests.counted import Counted
from tests.emulators.base import running
from tests.emulators.replicate import ReplicateEmulator
from tests.lifecycle import eventually, reread, run_sql
from tests.relay import (
    attempts,
    emulated_replicate,
    ended,
    receipt,
    replicate,
    route,
    running_worker,
    sent,
    settings_with,
    theirs,
)
from tests.stack import DATA, hardened_facts, running_services
from workers import main
from workers.models.noop import Noop
from workers.models.upscale import Upscale

GPU = """
[provider.gpu]
adapter = "inhouse"
pool = "gpu"
model = "realesrgan"
exposure = "local"
"""


class Broken(Noop):
    """A model that never delivers."""

    terms: ClassVar[Terms] = Upscale.terms

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        raise ProviderFailure(FailureKind.UNSUPPORTED, "broken")


class Gated(Upscale):
    """A model that waits until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__(DATA / "models")
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        self.begun.set()
        await self.gate.wait()
        return await super().submit(task, reporter)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Generator[ReplicateEmulator]:
    """An emulated Replicate."""
    with emulated_replicate(monkeypatch) as made:
        yield made


def put_into_gpu(monkeypatch: pytest.MonkeyPatch, model: Provider) -> None:
    """Let workers of the gpu pool run this model as the upscaler."""

    def models_of(pool: str, config: Config, settings: Settings) -> dict[str, Provider]:
        return {"realesrgan": model} if pool == "gpu" else {}

    monkeypatch.setattr(main, "models_of", models_of)


def config(provider: ReplicateEmulator, **more: object) -> str:
    """In-house first, Replicate as the fallback."""
    return GPU + replicate(provider.url) + route("upscale", "[{ gpu = 9 }, { replicate = 1 }]", **more)


async def test_without_an_in_house_worker_jobs_go_outside(
    settings: Settings, tmp_path: Path, provider: ReplicateEmulator
) -> None:
    """A provider that no live worker runs is no candidate: the next tier gets the job at the door."""
    whole = settings_with(settings, tmp_path, config(provider))
    async with running_services(whole) as services, running_worker(services, whole):
        job = await sent(services)
        assert job.pool == "relay"
        assert (await ended(services, job)).state is JobState.SUCCEEDED


async def test_in_house_comes_first_and_leaves_nothing_outside(
    settings: Settings, tmp_path: Path, provider: ReplicateEmulator
) -> None:
    """While the in-house worker lives the picture stays here, and the receipt says that no copy went anywhere."""
    whole = settings_with(settings, tmp_path, config(provider))
    async with (
        running_services(whole) as services,
        running_worker(services, whole),
        running_worker(services, whole, pool="gpu"),
    ):
        job = await sent(services)
        assert job.pool == "gpu"
        job = await ended(services, job)

        assert (job.state, job.exposure, job.provider_copies) == (JobState.SUCCEEDED, "local", "none")
        assert not provider.requests("order")
        assert not await theirs(services, job)
        assert (await receipt(services, job)).provider_copies == "none"


async def test_what_fails_in_house_is_done_outside(
    settings: Settings, tmp_path: Path, provider: ReplicateEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job moves to the relay's pool, once, and nobody goes back to the model that failed; nor is that on a bill."""
    counted = Counted(monkeypatch, "replicate")
    put_into_gpu(monkeypatch, Broken())
    whole = settings_with(settings, tmp_path, config(provider))
    async with (
        running_services(whole) as services,
        running_worker(services, whole),
        running_worker(services, whole, pool="gpu"),
    ):
        job = await ended(services, await sent(services))

        assert (job.state, job.pool, job.charged) == (JobState.SUCCEEDED, "relay", True)
        assert [a.provider for a in await attempts(services, job)] == ["gpu", "replicate"]
        assert len(provider.requests("order")) == 1
        assert counted.results() == {"succeeded": 1}


WORDS = """
[provider.pencil]
adapter = "inhouse"
pool = "gpu"
model = "pencil"
exposure = "local"

[provider.words]
adapter = "http"
base_url = "https://example.org"
secret = "env:LETHE_TEST_SECRET"
exposure = "logged"

[provider.words.operation.restyle]
input = { image = "$image", filter = "$filter", strength = "$strength", prompt = "$prompt" }
output = "/output"
options = { path = "/restyle" }
"""
FORGOTTEN = "UPDATE jobs SET pool = 'relay', queued_at = now() - interval '1 minute'"


@pytest.mark.parametrize(("typed", "pool"), [({}, "gpu"), ({"prompt": "a kingfisher"}, "relay")])
async def test_a_job_moves_only_to_who_takes_what_was_typed(
    settings: Settings, tmp_path: Path, *, typed: dict[str, str], pool: str
) -> None:
    """Nobody claims it, and the first tier is free: it takes no words, so that a job with some stays where it is."""
    tables = WORDS + route("restyle", "[{ pencil = 1 }, { words = 1 }]")
    async with running_services(settings_with(settings, tmp_path, tables)) as services:
        for home, name in (("gpu", "pencil"), ("relay", "words")):
            facts = Facts(pool=home, providers=(name,), posture=hardened_facts())
            await services.stores.processes.register(Process(id=uuid4(), role="worker", facts=facts), lease_s=3600)
        plain, texts = parted("restyle", parse_parameters("restyle", typed))
        job = await sent(services, operation="restyle", parameters=plain, texts=texts)
        await run_sql(settings, FORGOTTEN)

        async with asyncio.TaskGroup() as tasks:
            await services.rescue.once(tasks)

        assert (await reread(services, job)).pool == pool


async def test_a_congested_pool_overflows(
    settings: Settings, tmp_path: Path, provider: ReplicateEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that wait longer than the route allows move outside; new ones go there at the door; the rest stays in."""
    gated = Gated()
    put_into_gpu(monkeypatch, gated)
    whole = settings_with(settings, tmp_path, config(provider, overflow_after_s=1.0), slots=1)
    async with (
        running_services(whole) as services,
        running_worker(services, whole),
        running_worker(services, whole, pool="gpu"),
    ):
        first = await sent(services)
        await asyncio.wait_for(gated.begun.wait(), 10)
        second = await sent(services)
        assert (first.pool, second.pool) == ("gpu", "gpu")

        second = await ended(services, second)
        assert (second.state, second.pool) == (JobState.SUCCEEDED, "relay")

        gated.gate.set()
        first = await ended(services, first)
        assert (first.state, first.pool, first.exposure) == (JobState.SUCCEEDED, "gpu", "local")


async def test_a_new_configuration_moves_an_operation_while_jobs_run(
    settings: Settings, tmp_path: Path, provider: ReplicateEmulator
) -> None:
    """One line of lethe.toml: jobs under way end where they are, later ones go to the other provider."""
    other = ReplicateEmulator()
    other.states = []
    with running(other):
        tables = replicate(provider.url, name="one") + replicate(other.url, name="two")
        provider.states = ["processing"] * 1000
        whole = settings_with(settings, tmp_path, tables + route("upscale", "[{ one = 1 }]"))
        async with running_services(whole) as services, running_worker(services, whole):
            before = await sent(services)
            await eventually(lambda: _ordered(provider))

            Path(whole.config_file).write_text(tables + route("upscale", "[{ two = 1 }]"))
            await eventually(lambda: _serves(services, "two"), within_s=10)
            after = await ended(services, await sent(services))
            for prediction in provider.predictions.values():
                prediction.states = []
            before = await ended(services, before)

            assert (after.state, before.state) == (JobState.SUCCEEDED, JobState.SUCCEEDED)
            assert [a.provider for a in await attempts(services, after)] == ["two"]
            assert [a.provider for a in await attempts(services, before)] == ["one"]


async def _ordered(provider: ReplicateEmulator) -> bool:
    return bool(provider.requests("order"))


async def _serves(services: Services, name: str) -> bool:
    alive = await services.stores.processes.alive()
    return any(name in process.facts.providers for process in alive) and name in str(services.config.current.routes)

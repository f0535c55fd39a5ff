"""Workers that die while a provider has their jobs: what was ordered is waited for, and nothing is ordered twice."""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from broker.jobs import JobState
from broker.services import Services
from broker.settings import Settings
from providers.failures import FailureKind
from tests.emulators.base import Answer, Scripted, broken
from tests.emulators.replicate import ReplicateEmulator
from tests.lifecycle import eventually, reread
from tests.processes import LetheProcess, lethe_process
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
    waiting,
    words,
)
from tests.stack import running_services
from workers import main


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Generator[ReplicateEmulator]:
    """An emulated Replicate whose predictions run until the test lets them end."""
    with emulated_replicate(monkeypatch, *["processing"] * 1000) as made:
        yield made


def let_end(provider: ReplicateEmulator) -> None:
    """Every prediction ends with the next question."""
    for prediction in provider.predictions.values():
        prediction.states = []


def config_for(provider: ReplicateEmulator) -> str:
    return replicate(provider.url) + route("upscale", "[{ replicate = 1 }]")


@asynccontextmanager
async def worker_process(services: Services, settings: Settings, folder: Path) -> AsyncGenerator[LetheProcess]:
    """A relay worker as a process of its own."""
    logs = folder / f"logs-{len(list(folder.iterdir()))}"
    logs.mkdir()
    with lethe_process(["workers", "relay"], settings, logs) as process:

        async def is_known() -> bool:
            assert process.running.poll() is None, process.log
            return any("replicate" in p.facts.providers for p in await services.stores.processes.alive())

        await eventually(is_known, within_s=20)
        yield process


@asynccontextmanager
async def broker_with(
    settings: Settings, folder: Path, provider: ReplicateEmulator
) -> AsyncGenerator[tuple[Services, Settings]]:
    whole = settings_with(settings, folder, config_for(provider))
    async with running_services(whole) as services:
        yield services, whole


async def ordered(provider: ReplicateEmulator) -> None:
    """Wait until an order has arrived."""

    async def has_ordered() -> bool:
        return bool(provider.requests("order"))

    await eventually(has_ordered, within_s=20)


async def test_a_killed_worker_s_order_is_waited_for_by_the_next(
    settings: Settings, tmp_path: Path, provider: ReplicateEmulator
) -> None:
    """kill -9 while the provider works: another worker takes up the handle; one order, one charge."""
    async with broker_with(settings, tmp_path, provider) as (services, whole):
        async with worker_process(services, whole, tmp_path) as worker:
            job = await sent(services)
            await waiting(services, job)
            worker.kill()
        async with running_worker(services, whole):
            let_end(provider)
            final = await ended(services, job)

        assert (final.state, final.charged, final.crashes) == (JobState.SUCCEEDED, True, 1)
        assert len(provider.requests("order")) == 1
        assert len(await attempts(services, job)) == 1


async def test_a_stopped_worker_hands_its_orders_on(
    settings: Settings, tmp_path: Path, provider: ReplicateEmulator
) -> None:
    """SIGTERM while the provider works: the job goes back, the next worker waits on under the same handle."""
    async with broker_with(settings, tmp_path, provider) as (services, whole):
        async with worker_process(services, whole, tmp_path) as worker:
            job = await sent(services)
            await waiting(services, job)
            worker.stop()
        async with running_worker(services, whole):
            let_end(provider)
            final = await ended(services, job)

        assert (final.state, final.crashes) == (JobState.SUCCEEDED, 0)
        assert len(provider.requests("order")) == 1


async def test_a_stopped_worker_hears_what_became_of_its_order(
    settings: Settings, tmp_path: Path, provider: ReplicateEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM before the order is answered: the worker stays for the answer, then hands the job on; one order."""
    monkeypatch.setattr(main, "DRAIN_S", 0.1)
    async with broker_with(settings, tmp_path, provider) as (services, whole):
        async with running_worker(services, whole):
            provider.latency_s = 1.5
            job = await sent(services)
            await ordered(provider)
        assert (await reread(services, job)).state is JobState.QUEUED
        provider.latency_s = 0
        async with running_worker(services, whole):
            let_end(provider)
            final = await ended(services, job)

        assert (final.state, final.charged, final.crashes) == (JobState.SUCCEEDED, True, 0)
        assert len(provider.requests("order")) == 1


async def test_a_worker_killed_while_it_orders_leaves_an_uncertain_job(
    settings: Settings, tmp_path: Path, provider: ReplicateEmulator
) -> None:
    """kill -9 before the answer: nobody knows whether it was ordered, so that nobody orders again; `unknown`."""
    async with broker_with(settings, tmp_path, provider) as (services, whole):
        provider.next("order", Scripted(answer=Answer(body=b"{", slow_s=30)))
        async with worker_process(services, whole, tmp_path) as worker:
            job = await sent(services)
            await ordered(provider)
            worker.kill()
        async with running_worker(services, whole):
            final = await ended(services, job)

        assert (final.state, final.code, final.charged) == (JobState.FAILED, "provider_uncertain", False)
        assert len(provider.requests("order")) == 1
        assert set((await words(services, job)).values()) == {"unknown"}
        assert final.provider_copies == "unknown"


async def test_a_cancelled_job_is_stopped_at_the_provider_too(
    settings: Settings, tmp_path: Path, provider: ReplicateEmulator
) -> None:
    """The broker cancels, and has no secret: the job is final with `pending`; a relay worker stops the order, and the
    next receipt says what is known."""
    async with broker_with(settings, tmp_path, provider) as (services, whole), running_worker(services, whole):
        job = await sent(services)
        await waiting(services, job)

        verdict = await services.cancellation.delete(await reread(services, job))

        assert (verdict.job.state, verdict.job.provider_copies, verdict.job.charged) == ("canceled", "pending", False)
        assert (await receipt(services, job)).revision == 1

        async def is_revised() -> bool:
            return (await receipt(services, job)).revision == 2

        await eventually(is_revised, within_s=10)
        assert provider.requests("cancel")
        assert (await reread(services, job)).provider_copies == "expires"
        assert set((await words(services, job)).values()) == {"expires_by"}
        (attempt,) = await attempts(services, job)
        assert attempt.kind is FailureKind.CANCELED


async def test_a_deadline_stops_the_order(settings: Settings, tmp_path: Path, provider: ReplicateEmulator) -> None:
    """The job expires, the order is cancelled within settle, the cost is shown, and the user pays nothing."""
    # Rescue would be as soon as the worker's own clock; then the purge comes after the final state.
    unaided = msgspec.structs.replace(settings, rescue_every_s=60.0)
    async with broker_with(unaided, tmp_path, provider) as (services, whole), running_worker(services, whole):
        job = await ended(services, await sent(services, finish_within_s=3.0))

        assert (job.state, job.code, job.charged) == (JobState.EXPIRED, "not_finished_in_time", False)
        assert provider.requests("cancel")
        assert job.cost_usd == pytest.approx(0.003)
        assert job.provider_copies == "expires"


@pytest.mark.parametrize("asked", [[Scripted()] * 2, [broken(408)], [broken(409)]], ids=["away", "408", "409"])
async def test_a_question_that_gets_no_answer_is_asked_again(
    asked: list[Scripted], settings: Settings, tmp_path: Path, provider: ReplicateEmulator
) -> None:
    """A provider that is away while it is asked is asked again; the order counts once."""
    async with broker_with(settings, tmp_path, provider) as (services, whole), running_worker(services, whole):
        job = await sent(services)
        await waiting(services, job)
        provider.next("poll", *asked)
        let_end(provider)
        final = await ended(services, job)

        assert final.state is JobState.SUCCEEDED
        assert len(provider.requests("order")) == 1

"""Jobs that go round: workers and configurations that do not agree on who has a provider."""

import json
from pathlib import Path

import pytest

from broker.jobs import JobState
from broker.routes import Config
from broker.settings import Settings
from providers.base import Provider
from tests.desk import Desk, config, own_desk
from tests.lifecycle import eventually, run_sql
from tests.relay import (
    ended,
    route,
    running_worker,
    sent,
    settings_with,
)
from tests.stack import pretend_worker, running_services
from workers import main
from workers.outcomes import HandOver
from workers.route_walk import Attempts, RouteWalk
from workers.work import Work

LATE = '[provider.late]\nadapter = "inhouse"\npool = "gpu"\nmodel = "realesrgan"\nexposure = "local"\n'
BUSY = json.dumps({"pool": "gpu", "providers": ["late"]})


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> type[Desk]:
    """A provider of this test's own."""
    return own_desk(monkeypatch)


class Nowhere(Attempts):
    """A worker that runs nothing."""

    def __init__(self) -> None:
        """It has no adapters."""

    def is_here(self, provider: str) -> bool:
        del provider
        return False


async def test_a_provider_that_is_new_since_the_claim_is_no_accident(
    settings: Settings, tmp_path: Path, desk: type[Desk]
) -> None:
    """A configuration that changes between claim and choice sends the job round once more, and fails it not."""
    now = settings_with(settings, tmp_path, config())
    old_folder = tmp_path / "old"
    old_folder.mkdir()
    before = settings_with(settings, old_folder, config().replace("desk", "former"))
    async with running_services(before) as old, running_services(now) as services:
        await pretend_worker(services)
        await run_sql(
            settings, "UPDATE processes SET facts = facts || $1", json.dumps({"pool": "relay", "providers": ["desk"]})
        )
        job = await sent(services)
        known = old.config.current
        found = known.route("upscale")
        assert found is not None
        work = Work(job=job, uploads=await services.stores.custody.uploads(job.id), texts={})

        step = await RouteWalk(services, Nowhere(), work, config=known, route=found).end()

        assert isinstance(step, HandOver)


async def test_a_job_that_nobody_here_can_run_goes_round_slowly(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only another worker of the pool has its provider, and is busy: this one does not claim it without pause."""

    def no_models(pool: str, config: Config, settings: Settings) -> dict[str, Provider]:
        del pool, config, settings
        return {}

    monkeypatch.setattr(main, "models_of", no_models)
    whole = settings_with(settings, tmp_path, LATE + route("upscale", "[{ late = 1 }]"))
    async with running_services(whole) as services, running_worker(services, whole, pool="gpu"):
        busy = await pretend_worker(services)
        await run_sql(settings, "UPDATE processes SET facts = facts || $2 WHERE id = $1", busy, BUSY)

        async def is_seen() -> bool:
            return "upscale" in await services.fleet.operations()

        await eventually(is_seen)
        job = await ended(services, await sent(services, finish_within_s=5.0))

        assert job.state is JobState.EXPIRED
        assert 2 <= job.attempts <= 10

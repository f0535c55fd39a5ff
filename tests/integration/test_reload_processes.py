"""Brokers and workers take a new lethe.toml into use while jobs run."""

import asyncio
import signal
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from PIL import Image

from broker.jobs import Job, JobState
from broker.services import Services
from broker.settings import Settings
from tests.brokers import broker_process
from tests.emulators.base import broken, running
from tests.emulators.replicate import SECRET, ReplicateEmulator
from tests.images_corpus import saved
from tests.lifecycle import eventually, run_sql
from tests.pictures import photo
from tests.processes import lethe_process
from tests.relay import (
    SECRET_VARIABLE,
    attempts,
    ended,
    receipt,
    relaying,
    replicate,
    route,
    sent,
    settings_with,
    words,
)
from tests.stack import CONFIG

NOOP_ROUTE = '[[route]]\noperation = "noop"\ntiers = [{ noop = 1 }]\n'
DUE = "UPDATE attempts SET purge_at = now() - interval '1 second' WHERE purge_at IS NOT NULL"


async def test_a_broker_takes_a_new_file_on_sighup(services: Services, settings: Settings, tmp_path: Path) -> None:
    """The signal goes to its guard, as an operator sends it; what can be asked for changes, and nobody restarts."""
    file = tmp_path / "lethe.toml"
    text = CONFIG.read_text()
    file.write_text(text)
    own = msgspec.structs.replace(settings, config_file=str(file))
    async with broker_process(services, own, tmp_path) as (process, api):

        async def operations() -> set[str]:
            items = (await api.http.get("/v1/operations")).json()["items"]
            return {item["name"] for item in items}

        async def is_without() -> bool:
            return await operations() == {"upscale", "restyle"}

        assert await operations() == {"noop", "upscale", "restyle"}
        pid = process.child_pid
        file.write_text(text.replace(NOOP_ROUTE, ""))
        process.running.send_signal(signal.SIGHUP)
        await eventually(is_without, within_s=5)
        file.write_text(text.replace("noop = 1", "nope = 1"))
        process.running.send_signal(signal.SIGHUP)

        async def is_refused() -> bool:
            return "config_refused" in process.log

        await eventually(is_refused, within_s=5)
        assert await is_without(), "a wrong file changes nothing"
        assert process.child_pid == pid


class Pair(NamedTuple):
    """Two emulated providers that can do the same."""

    first: ReplicateEmulator
    second: ReplicateEmulator

    def config(self, tiers: str, *names: str) -> str:
        """These of both, with a route over these tiers."""
        urls = {"first": self.first.url, "second": self.second.url}
        return "".join(replicate(urls[name], name=name) for name in names) + route("upscale", tiers)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Generator[Pair]:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    pair = Pair(ReplicateEmulator(run_s=1.5), ReplicateEmulator())
    with running(pair.first), running(pair.second):
        yield pair


async def runs_at(services: Services, job: Job, provider: str) -> None:
    async def is_there() -> bool:
        return [attempt.provider for attempt in await attempts(services, job) if attempt.handle] == [provider]

    await eventually(is_there)


async def is_taken(services: Services, providers: set[str]) -> None:
    """Wait until the worker and the broker both work by the new file."""

    async def is_so() -> bool:
        found = await services.stores.processes.alive()
        said = {name for process in found if process.role == "worker" for name in process.facts.providers}
        routed = {provider for route in services.config.current.routes.values() for provider in route.providers}
        return said == routed == providers

    await eventually(is_so, within_s=5)


async def test_a_provider_is_swapped_while_its_job_runs(settings: Settings, tmp_path: Path, pair: Pair) -> None:
    """The running job ends where it was begun, although the file has not even its name any more; the next goes on."""
    before = pair.config("[{ first = 1 }]", "first")
    async with relaying(settings, tmp_path, before) as services:
        running_job = await sent(services)
        await runs_at(services, running_job, "first")
        (tmp_path / "lethe.toml").write_text(pair.config("[{ second = 1 }]", "second"))
        await is_taken(services, {"second"})
        next_job = await ended(services, await sent(services))
        running_job = await ended(services, running_job)

        assert (running_job.state, next_job.state) == (JobState.SUCCEEDED, JobState.SUCCEEDED)
        assert [attempt.provider for attempt in await attempts(services, running_job)] == ["first"]
        assert [attempt.provider for attempt in await attempts(services, next_job)] == ["second"]


async def test_a_provider_that_was_taken_out_is_still_asked_to_delete(
    settings: Settings, tmp_path: Path, pair: Pair
) -> None:
    """What it has is deleted by the worker that used it, and by any other as long as its table stands in the file."""
    pair.first.run_s = 0
    async with relaying(settings, tmp_path, pair.config("[{ first = 1 }]", "first")) as services:
        pair.first.next("delete", *[broken()] * 3)
        job = await ended(services, await sent(services, saved(Image.fromarray(photo(700, 600)), "PNG")))
        assert (await words(services, job))["upload"] == "purge_pending"
        (tmp_path / "lethe.toml").write_text(pair.config("[{ second = 1 }]", "second"))
        await is_taken(services, {"second"})
        pair.first.script.clear()

        async def is_deleted() -> bool:
            await run_sql(settings, DUE)
            return (await words(services, job))["upload"] == "deleted_by_api"

        await eventually(is_deleted, within_s=15)
        assert not pair.first.files

        async def is_revised() -> bool:
            return (await receipt(services, job)).revision == 2

        await eventually(is_revised)


async def test_a_worker_refuses_a_file_whose_secret_it_does_not_have(
    settings: Settings, tmp_path: Path, pair: Pair
) -> None:
    """It goes on with what it has; once the secret is there the next reload takes it."""
    secret = tmp_path / "secret"
    both = pair.config("[{ first = 1 }, { second = 1 }]", "first", "second")
    head, table, tail = both.partition("[provider.second]")
    wanting = head + table + tail.replace(f"env:{SECRET_VARIABLE}", f"file:{secret}", 1)
    async with relaying(settings, tmp_path, pair.config("[{ first = 1 }]", "first")) as services:
        file = tmp_path / "lethe.toml"
        file.write_text(wanting)

        async def is_routed() -> bool:
            return "second" in services.config.current.routes["upscale"].providers

        await eventually(is_routed, within_s=5)
        assert (await ended(services, await sent(services))).state is JobState.SUCCEEDED
        secret.write_text(SECRET)
        file.write_text(wanting + "\n")
        await is_taken(services, {"first", "second"})


async def test_a_secret_is_changed_without_a_restart(settings: Settings, tmp_path: Path, pair: Pair) -> None:
    """A file with a new secret is read with the next reload, though lethe.toml says what it said before."""
    secret = tmp_path / "secret"
    secret.write_text("r8_revoked")
    config = pair.config("[{ second = 1 }]", "second").replace(f"env:{SECRET_VARIABLE}", f"file:{secret}")
    async with relaying(settings, tmp_path, config) as services:
        job = await ended(services, await sent(services))
        assert (job.state, job.code) == (JobState.FAILED, "provider_refused")
        secret.write_text(SECRET)
        (tmp_path / "lethe.toml").write_text(config + "\n")

        async def succeeds() -> bool:
            return (await ended(services, await sent(services))).state is JobState.SUCCEEDED

        await eventually(succeeds, within_s=15)


@pytest.mark.parametrize(
    ("secret", "options", "reason"),
    [
        ("env:LETHE_NOT_THERE", "", "provider.first.secret: env:LETHE_NOT_THERE is empty, or cannot be read"),
        ("file:/nowhere/secret", "", "provider.first.secret: file:/nowhere/secret is empty, or cannot be read"),
        (f"env:{SECRET_VARIABLE}", "model", "provider.first.operation.upscale: model is no id of Replicate"),
    ],
)
async def test_a_worker_does_not_start_without_what_it_needs(
    settings: Settings, tmp_path: Path, pair: Pair, secret: str, options: str, reason: str
) -> None:
    """A missing secret, or a model that the adapter refuses, ends the start with file, line and reason."""
    text = pair.config("[{ first = 1 }]", "first").replace(f"env:{SECRET_VARIABLE}", secret)
    if options:
        text = text.replace("someone/upscaler:", "no id ")
    key = "[provider.first.operation.upscale]" if options else "secret ="
    line = next(n for n, found in enumerate(text.splitlines(), 1) if found.startswith(key))
    with lethe_process(["workers", "relay"], settings_with(settings, tmp_path, text), tmp_path) as process:
        assert await asyncio.to_thread(process.running.wait, 20) == 1
    assert f"lethe cannot start: {tmp_path}/lethe.toml:{line}: {reason}\n" in process.log
    assert "Traceback" not in process.log

"""A relay worker in this process, on real stores, against an emulated provider; and jobs that go there."""

import asyncio
import io
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from PIL import Image

from broker.attempts import Attempt, AttemptState
from broker.custody import Copy, Domain
from broker.jobs import Job
from broker.receipts import Receipt, verify
from broker.services import Services
from broker.settings import Settings
from policies.registry import load_profile
from tests.emulators.base import running
from tests.emulators.replicate import SECRET, ReplicateEmulator
from tests.lifecycle import eventually, reread
from tests.profiles import open_profile
from tests.stack import PipeGuard, body_of, running_services, submission
from workers.main import work

SECRET_VARIABLE = "LETHE_TEST_SECRET"

REPLICATE = """
[provider.{name}]
adapter = "replicate"
base_url = "{url}"
secret = "env:LETHE_TEST_SECRET"
exposure = "ephemeral"
hosts = ["replicate.delivery", "*.replicate.delivery"]
concurrency = {concurrency}

[provider.{name}.operation.upscale]
model = "someone/upscaler:f121d640bd286e1fdc67f9799164c1d5be36ff74576ee11c803ae5b665dd46aa"
input = {{ image = "$image", scale = "$scale:2" }}
output = "/output"
cost_usd = 0.003
usd_per_s = 0.001
"""


@contextmanager
def emulated_replicate(monkeypatch: pytest.MonkeyPatch, *states: str) -> Generator[ReplicateEmulator]:
    """Run an emulated Replicate whose predictions go through these states; without any, they are done when asked."""
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    made = ReplicateEmulator()
    made.states = list(states)
    with running(made):
        yield made


def replicate(url: str, *, name: str = "replicate", concurrency: int = 100) -> str:
    """A provider table for an emulated Replicate."""
    return REPLICATE.format(url=url, name=name, concurrency=concurrency)


def route(operation: str, tiers: str, **more: Any) -> str:
    """A route table; `more` are its further fields."""
    fields = "".join(f"{key} = {msgspec.json.encode(value).decode()}\n" for key, value in more.items())
    return f'\n[[route]]\noperation = "{operation}"\ntiers = {tiers}\n{fields}'


def settings_with(settings: Settings, folder: Path, config: str, **changed: Any) -> Settings:
    """Settings with this lethe.toml, and a profile that lets pictures go to providers for 40 days."""
    profile, file = open_profile(folder, jobs_per_minute="60_000", jobs_at_once="5_000"), folder / "lethe.toml"
    file.write_text(config)
    # Broker, worker and test share one loop: none of them counts as dead because the others were busy for a moment.
    patient = {"lease_s": 6.0, **changed}
    return msgspec.structs.replace(settings, profile=profile, config_file=str(file), **patient)


@asynccontextmanager
async def running_worker(services: Services, settings: Settings, *, pool: str = "relay") -> AsyncGenerator[None]:
    """Run a worker of a pool in this process's loop, known to the broker."""
    pipe, stopping = PipeGuard(), asyncio.Event()
    running = asyncio.create_task(
        work(settings, pool, guard=pipe.guard, profile=load_profile(settings.profile), stopping=stopping)
    )
    try:
        await eventually(lambda: _is_known(services, running, pool), within_s=20)
        yield
    finally:
        stopping.set()
        await running
        pipe.close()


@asynccontextmanager
async def relaying(settings: Settings, folder: Path, config: str, **changed: Any) -> AsyncGenerator[Services]:
    """A broker's services and a relay worker on a configuration."""
    whole = settings_with(settings, folder, config, **changed)
    async with running_services(whole) as services, running_worker(services, whole):
        yield services


async def _is_known(services: Services, running: "asyncio.Task[None]", pool: str) -> bool:
    if running.done():
        running.result()
    found = await services.fleet.alive()  # what the broker knows, which may be a second old
    return any(process.role == "worker" and process.facts.pool == pool for process in found)


def photo_bytes(width: int = 64, height: int = 48) -> bytes:
    """A small JPEG."""
    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(out, "JPEG")
    return out.getvalue()


async def sent(services: Services, body: bytes | None = None, **changed: Any) -> Job:
    """Send a photo to be upscaled."""
    asked: Mapping[str, Any] = {"operation": "upscale", "parameters": {"scale": 2, "quality": "fast"}, **changed}
    new = await submission(services, public_id=uuid4(), **asked)
    job, _ = await services.intake.submit(new, body_of(body or photo_bytes()))
    return job


async def ended(services: Services, job: Job, *, within_s: float = 40) -> Job:
    """Wait for the final state."""

    async def is_final() -> bool:
        return (await reread(services, job)).is_final

    await eventually(is_final, within_s=within_s)
    return await reread(services, job)


async def waiting(services: Services, job: Job) -> None:
    """Wait until the provider has the order under a stored handle."""

    async def is_waiting() -> bool:
        return any(attempt.state is AttemptState.WAITING for attempt in await attempts(services, job))

    await eventually(is_waiting, within_s=20)


async def attempts(services: Services, job: Job) -> list[Attempt]:
    """Every attempt of a job."""
    return await services.stores.attempts.of_job(job.id)


async def receipt(services: Services, job: Job) -> Receipt:
    """The newest receipt, verified."""
    note = await services.stores.receipts.latest(job.id)
    assert note is not None
    return verify(note, [services.signer.vkey])


async def theirs(services: Services, job: Job) -> list[Copy]:
    """The custody rows of what providers had."""
    return [copy for copy in await services.stores.custody.copies(job.id) if copy.domain is Domain.PROVIDER]


async def words(services: Services, job: Job) -> dict[str, str]:
    """What is known of each thing that providers had, by what it is."""
    return {copy.what: str(copy.evidence) for copy in await theirs(services, job)}

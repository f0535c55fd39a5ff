"""Schemathesis on the document that a broker serves: every check on, seeded, and nothing that it finds is let pass."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from bench.machine import peak_rss_bytes
from broker.services import Services
from broker.settings import Settings
from tests.api_client import Api
from tests.brokers import MEMORY_BYTES, broker_process
from tests.checks import plant

CONFIG = Path(__file__).parents[1] / "schemathesis.toml"
PROGRAM = Path(sys.executable).with_name("schemathesis")

PARAMETERS = """
[parameters]
"path.job_id" = "{job_id}"
"path.n" = 0
"""


async def schemathesis(api: Api, folder: Path, *, config: str, options: tuple[str, ...] = ()) -> None:
    """Run it; raise with all that it said where it found something."""
    file = folder / "schemathesis.toml"
    file.write_text(config)
    running = await asyncio.create_subprocess_exec(
        *(str(PROGRAM), "--config-file", str(file), "run", f"{api.url}/openapi.json", *options),
        *("--header", f"Authorization: Bearer {plant(api.token)}"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await running.communicate()
    assert running.returncode == 0, said.decode()


@pytest.fixture
async def api(services: Services, settings: Settings, tmp_path: Path) -> AsyncGenerator[Api]:
    """A broker in a process of its own, whose memory stays within its budget all the time."""
    async with broker_process(services, settings, tmp_path) as (process, api):
        yield api
        assert peak_rss_bytes(process.child_pid) < MEMORY_BYTES
        assert "request_failed" not in process.log


async def test_what_is_documented_is_what_is_done(api: Api, tmp_path: Path) -> None:
    """Valid, invalid and odd requests of every operation get what the document says, and never a 500."""
    # Whoever is erased in the middle gets 401 to all that follows.
    await schemathesis(api, tmp_path, config=CONFIG.read_text(), options=("--exclude-operation-id", "deleteMe"))


async def test_an_erasure_is_as_documented(api: Api, tmp_path: Path) -> None:
    """The first, and every one that is asked for once the user is gone."""
    await schemathesis(api, tmp_path, config=CONFIG.read_text(), options=("--include-operation-id", "deleteMe"))


async def test_a_job_that_is_there_is_as_documented_too(api: Api, tmp_path: Path) -> None:
    """What is shown of a job, its output, its receipt and its events, and in the end what DELETE answers."""
    job = await api.finished(b"an output")
    reading = ("--include-path-regex", "job_id", "--exclude-method", "PUT", "--phases", "coverage,fuzzing")
    config = CONFIG.read_text() + PARAMETERS.format(job_id=job["id"])
    await schemathesis(api, tmp_path, config=config, options=(*reading, "--mode", "positive"))

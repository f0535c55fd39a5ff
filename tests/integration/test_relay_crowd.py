"""One relay worker process and two thousand jobs that wait at one provider: it holds them all, in little memory."""

from collections.abc import Generator
from pathlib import Path

import pytest

from bench.machine import peak_rss_bytes
from broker.settings import Settings
from tests.emulators.base import Answer, Emulator, Seen, answer_json, running
from tests.lifecycle import eventually, run_sql
from tests.processes import lethe_process
from tests.relay import running_worker, sent, settings_with, waiting
from tests.stack import running_services

JOBS = 2_000
MEMORY_BYTES = 500_000_000
HELD_WITHIN_S = 240.0
LEASE_S = 30.0
PATIENT = """
[provider.patient]
adapter = "http"
base_url = "{url}"
exposure = "logged"
concurrency = 10000
options = {{ auth = "none" }}

[provider.patient.operation.upscale]
input = {{ image = "$image" }}
output = "/image"

[provider.patient.operation.upscale.options]
path = "/v1/jobs"
id = "/id"
state = "/state"
done = ["done"]
poll_path = "/v1/jobs/{{id}}"
poll_after_s = 10.0

[[route]]
operation = "upscale"
tiers = [{{ patient = 1 }}]
"""

# Again and again the job whose worker was stopped while its order ran; without its upload, since nobody needs that to
# wait for an order.
CLONE_JOBS = """
INSERT INTO jobs
SELECT (jsonb_populate_record(job, jsonb_build_object(
    'id', gen_random_uuid(), 'public_id', gen_random_uuid(), 'open_copies', 0, 'code', handle
))).*
FROM jobs AS job, unnest($1::text[]) AS handle
"""
CLONE_ATTEMPTS = """
INSERT INTO attempts
SELECT (jsonb_populate_record(attempt, jsonb_build_object(
    'id', gen_random_uuid(), 'job_id', job.id, 'handle', attempt.handle || jsonb_build_object('id', job.code)
))).*
FROM attempts AS attempt, jobs AS job WHERE job.code <> ''
"""


class Patient(Emulator):
    """A provider whose jobs run on and on, and are asked about every ten seconds; `asked` are those that were."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()
        self.routes = {"POST /v1/jobs": ("order", self.order), "GET /v1/jobs/{id}": ("poll", self.poll)}

    async def order(self, seen: Seen) -> Answer:
        """Take a job."""
        return answer_json({"id": "first"})

    async def poll(self, seen: Seen, id: str) -> Answer:  # noqa: A002  the name stands in the path
        """It runs."""
        self.asked.add(id)
        return answer_json({"id": id, "state": "running"})


async def multiplied(settings: Settings) -> None:
    """Let there be as many orders under way as the one job has, each under a handle of its own."""
    await run_sql(settings, CLONE_JOBS, [f"job-{n}" for n in range(1, JOBS)])
    await run_sql(settings, CLONE_ATTEMPTS)
    await run_sql(settings, "UPDATE jobs SET code = ''")


@pytest.fixture
def provider() -> Generator[Patient]:
    """Run one."""
    made = Patient()
    with running(made):
        yield made


async def test_one_worker_process_holds_two_thousand_jobs_at_a_provider(
    settings: Settings, tmp_path: Path, provider: Patient
) -> None:
    """It claims them all, asks about every one under its own handle, and stays below 500 MB."""
    whole = settings_with(settings, tmp_path, PATIENT.format(url=provider.url), lease_s=LEASE_S)
    async with running_services(whole) as services:
        async with running_worker(services, whole):
            await waiting(services, await sent(services))
        await multiplied(settings)
        provider.seen.clear()
        provider.asked.clear()
        with lethe_process(["workers", "relay"], whole, tmp_path) as worker:

            async def is_holding() -> bool:
                assert worker.running.poll() is None, worker.log
                return len(provider.asked) == JOBS

            await eventually(is_holding, within_s=HELD_WITHIN_S)
            rows = await services.stores.database.row("SELECT count(*) AS held FROM jobs WHERE state = 'running'")
            assert rows is not None
            assert rows["held"] == JOBS
            assert not provider.requests("order")
            assert peak_rss_bytes(worker.child_pid) <= MEMORY_BYTES
            worker.kill()

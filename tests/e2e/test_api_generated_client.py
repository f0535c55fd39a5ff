"""The main job, done by a client that was generated from the document that the broker serves."""

import asyncio
import importlib
import io
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import pytest

from broker.api.openapi import encoded_document
from broker.jobs import Outcome
from broker.receipts import verify
from tests.api_client import Api
from tests.stack import upload_bytes

CONFIG = """\
package_name_override: lethe_generated
post_hooks: []
content_type_overrides:
  "image/*": application/octet-stream
  application/problem+json: application/json
  application/vnd.lethe.sealed: application/octet-stream
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    folder = tmp_path_factory.mktemp("generated")
    (folder / "document.json").write_bytes(encoded_document())
    (folder / "config.yaml").write_text(CONFIG)
    command = [str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--meta", "none"]
    command += ["--path", "document.json", "--config", "config.yaml", "--output-path", "lethe_generated"]
    subprocess.run([*command, "--fail-on-warning"], cwd=folder, check=True, capture_output=True, timeout=60)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.startswith("lethe_generated")]:
        del sys.modules[name]


def call(name: str) -> Any:
    return importlib.import_module(f"lethe_generated.api.default.{name}")


async def test_a_generated_client_does_the_main_job(api: Api, generated: Path) -> None:
    """User, upload, wait, output, receipt, delete: every answer is of the type that the document names."""
    client_module: Any = importlib.import_module("lethe_generated.client")
    async with client_module.Client(base_url=api.url) as anybody:
        user = await call("create_user").asyncio(client=anybody)
    async with client_module.AuthenticatedClient(base_url=api.url, token=user.token) as client:
        await main_job(api, client, importlib.import_module("lethe_generated.types"))


async def main_job(api: Api, client: Any, types: ModuleType) -> None:
    job_id, body = uuid4(), types.File(payload=io.BytesIO(upload_bytes()).read())
    job = await call("put_job").asyncio(job_id, client=client, body=body, operation="noop")
    assert (type(job).__name__, job.id, job.status) == ("Job", job_id, "queued")

    waiting = asyncio.create_task(call("get_job").asyncio(job_id, client=client, prefer="wait=20"))
    await api.ended({"id": str(job_id)}, Outcome.SUCCEEDED, outputs=(b"result",))
    job = await waiting
    assert (job.status, job.charged, len(job.outputs)) == ("succeeded", True, 1)
    assert job.created_at.tzinfo is not None

    output = await call("get_output").asyncio(job_id, 0, client=client)
    assert output.payload.read() == b"result"
    note = await call("get_receipt").asyncio(job_id, client=client)
    keys = await call("list_receipt_keys").asyncio(client=client)
    assert verify(note, [key.vkey for key in keys.items]).job == job_id
    page = await call("list_jobs").asyncio(client=client)
    assert [item.id for item in page.items] == [job_id]
    verdict = await call("delete_job").asyncio(job_id, client=client)
    assert (verdict.canceled, verdict.outputs) == (False, "destroyed")

    await posted_jobs(client, types)
    problem = await call("get_job").asyncio(UUID(int=0), client=client)
    assert (type(problem).__name__, problem.code) == ("Problem", "job_not_found")


async def posted_jobs(client: Any, types: ModuleType) -> None:
    """Words as JSON (which nobody here can do: the problem says so), and a picture as a form."""
    models: Any = importlib.import_module("lethe_generated.models")
    words = models.NewJob.from_dict({"operation": "generate", "parameters": {"prompt": "a red roof"}})
    problem = await call("post_job").asyncio(client=client, body=words, idempotency_key="words")
    assert (type(problem).__name__, problem.code) == ("Problem", "operation_unavailable")
    picture = types.File(payload=io.BytesIO(upload_bytes()), file_name="a.jpg", mime_type="image/jpeg")
    form = models.PostJobFilesBody(job=models.NewJob.from_dict({"operation": "noop"}), picture=[picture])
    job = await call("post_job").asyncio(client=client, body=form, idempotency_key="picture")
    assert (type(job).__name__, job.operation, job.status) == ("Job", "noop", "queued")

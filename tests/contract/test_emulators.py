"""The emulators as processes of their own, as demos run them."""

import io
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from providers.base import Output
from providers.calls import trust
from tests.contract.cases import CASES
from tests.contract.orders import run, task
from tests.emulators.case import Case


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """Each in turn."""
    return request.param


@pytest.fixture
def url(case: Case) -> Iterator[str]:
    """Start it as an operator does, read its address, and see that it ends well when it is told to."""
    command = [sys.executable, "-m", f"tests.emulators.{case.name}", "--seconds", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        assert process.wait(10) == 0


async def test_an_emulator_runs_by_itself(case: Case, url: str) -> None:
    """It makes real pictures of the one that it is given, in its own time."""
    adapter = case.make(url)
    (output,) = (await run(adapter, task(case))).outputs
    await adapter.aclose()
    drawn = Image.open(io.BytesIO(await content_of(output)))
    drawn.load()
    assert drawn.size in {(128, 96), (32, 24)}, "the models of the emulators double or halve"


async def content_of(output: Output) -> bytes:
    """Fetch what is not there yet."""
    if output.data is not None:
        return output.data
    async with httpx.AsyncClient(verify=trust(), trust_env=False) as bare:
        return (await bare.get(output.url)).content

"""The emulators that demos run as processes of their own."""

import io
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from tests.contract.orders import run, task
from tests.emulators import fal, replicate
from tests.emulators.case import Case


@pytest.fixture(params=(replicate.CASE, fal.CASE), ids=lambda case: case.name)
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
    """It makes real pictures larger, in its own time."""
    adapter = case.make(url)
    (output,) = (await run(adapter, task(case))).outputs
    await adapter.aclose()
    async with httpx.AsyncClient(trust_env=False) as bare:
        drawn = await bare.get(output.url)
    assert Image.open(io.BytesIO(drawn.content)).size == (128, 96)

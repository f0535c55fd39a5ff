"""The emulators as processes of their own, as demos run them."""

import io
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from providers.base import Output
from providers.calls import trust
from tests.contract.cases import CASES
from tests.contract.orders import run, task
from tests.emulators.base import BROKEN_OFF, running
from tests.emulators.case import Case
from tests.emulators.openai_images import OpenAIEmulator

HALF = (
    b"POST /v1/images/edits HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\nhalf a picture'
)


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


def test_a_request_that_is_broken_off_is_no_order() -> None:
    """Its sender dies in the middle of the picture: the bytes are seen, and nothing is carried out or counted."""
    emulator = OpenAIEmulator()
    with running(emulator) as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port)) as sender:
            sender.sendall(HALF)
            sender.shutdown(socket.SHUT_WR)
            assert sender.recv(100) == b""
    assert emulator.requests("edit") == []
    assert [seen.route for seen in emulator.seen] == [BROKEN_OFF]
    assert b"half a picture" in emulator.bytes_seen

"""The emulator of the Images API as OpenAI's own client sees it, and what that client sends beside what we send."""

import io
import json
import subprocess
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.contract.orders import picture, run, task
from tests.emulators.base import Scripted, running
from tests.emulators.forms import files_in
from tests.emulators.openai_images import CASE, MODEL, SECRET, TOKENS, OpenAIEmulator, make, moderated, refusal
from tests.peers import PEERS_PYTHON

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def emulator() -> Iterator[OpenAIEmulator]:
    """Run the API; its first two orders are refused."""
    made = OpenAIEmulator()
    quota = refusal(429, "insufficient_quota", "insufficient_quota")
    made.next("generate", Scripted(answer=moderated("input")), Scripted(answer=quota))
    with running(made):
        yield made


@pytest.fixture(scope="module")
def told(emulator: OpenAIEmulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Let the client order, and return what it read."""
    photo = tmp_path_factory.mktemp("client") / "image.jpg"
    Image.new("RGB", (20, 10), (200, 90, 9)).save(photo)
    command = [PEERS_PYTHON, TESTS / "peers_openai.py", f"{emulator.url}/v1", SECRET, MODEL, photo]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("order", "form", "sizes"),
    [("generated", "JPEG", [(32, 32)] * 2), ("edited", "PNG", [(10, 5)]), ("composed", "PNG", [(20, 5)])],
)
def test_the_client_reads_what_the_emulator_makes(
    told: dict[str, Any], order: str, form: str, sizes: list[tuple[int, int]]
) -> None:
    """Pictures, tokens and formats arrive as the client's own types."""
    answer = told[order]
    pictures = [Image.open(io.BytesIO(bytes.fromhex(one))) for one in answer["pictures"]]
    assert [(one.format, one.size) for one in pictures] == [(form, size) for size in sizes]
    assert (answer["tokens"], answer["format"]) == (TOKENS, form.lower())
    assert isinstance(answer["created"], int)


def test_the_client_raises_what_the_emulator_refuses(told: dict[str, Any]) -> None:
    """Status and code of each refusal are where the client looks for them."""
    assert told["moderated"] == ["BadRequestError", 400, "moderation_blocked"]
    assert told["no_quota"] == ["RateLimitError", 429, "insufficient_quota"]
    assert told["unknown_model"] == ["NotFoundError", 404, "model_not_found"]
    assert told["wrong_key"] == ["AuthenticationError", 401, "invalid_api_key"]
    assert told["models"] == [MODEL]


@pytest.mark.parametrize("count", [1, 2])
async def test_we_send_what_the_client_sends(emulator: OpenAIEmulator, told: dict[str, Any], count: int) -> None:
    """The parts of a form have the same names in our order and in the client's."""
    (theirs,) = [seen for seen in emulator.requests("edit")[:2] if len(files_in(seen)) == count]
    async with aclosing(make(emulator.url)) as provider:
        await run(provider, task(CASE, tuple(picture(seed=n) for n in range(count))))
    ours = emulator.requests("edit")[-1]
    assert [part.name for part in files_in(ours)] == [part.name for part in files_in(theirs)]
    assert [part.media_type for part in files_in(ours)] == [part.media_type for part in files_in(theirs)]
    assert (ours.path, ours.headers["authorization"]) == (theirs.path, theirs.headers["authorization"])

"""Every operation from the phone's side: words, one picture, several, films, each through a relay worker."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest

from broker.app import bound, listening, url_of
from broker.services import Services
from broker.settings import Settings
from providers.calls import trust
from tests.checks import plant
from tests.emulators.base import Answer, Scripted, running
from tests.emulators.openai_images import SECRET as OPENAI_SECRET
from tests.emulators.openai_images import OpenAIEmulator
from tests.emulators.replicate import SECRET as REPLICATE_SECRET
from tests.emulators.replicate import ReplicateEmulator
from tests.forms import CONTENT_TYPE, PROMPT, form_of, job_part, picture_part
from tests.relay import SECRET_VARIABLE, photo_bytes, replicate, route, running_worker, settings_with
from tests.stack import running_services
from tests.videos_corpus import marked_mp4

OPENAI = """
[provider.openai]
adapter = "openai_images"
base_url = "{url}/v1"
secret = "env:LETHE_TEST_OPENAI"
exposure = "logged"
"""
MODEL = """
[provider.openai.operation.{operation}]
model = "gpt-image-2"
input = {{ prompt = "$prompt", n = "$count:1", output_format = "jpeg" }}
max_outputs = 4
max_pictures = 16
cost_usd = 0.04
"""
ANIMATE = """
[provider.replicate.operation.animate]
model = "someone/films"
input = { image = "$image", prompt = "$prompt", seconds = "$duration_s" }
output = "/output"
cost_usd = 0.2
"""


class Studio(NamedTuple):
    """The two providers, and a phone."""

    openai: OpenAIEmulator
    films: ReplicateEmulator
    http: httpx.AsyncClient
    services: Services

    async def post(self, content: bytes, content_type: str = "application/json") -> httpx.Response:
        """Send a job under a key of its own."""
        headers = {"Idempotency-Key": str(uuid4()), "Content-Type": content_type}
        return await self.http.post("/v1/jobs", content=content, headers=headers)

    async def final(self, answer: httpx.Response) -> dict[str, Any]:
        """Wait for the end."""
        assert answer.status_code == 202, answer.text
        path = answer.headers["location"]
        while "finalized_at" not in answer.json():
            headers = {"Prefer": "wait=20", "If-None-Match": answer.headers["etag"]}
            answer = await self.http.get(path, headers=headers)
        return answer.json()


@pytest.fixture
def providers(monkeypatch: pytest.MonkeyPatch) -> Generator[tuple[OpenAIEmulator, ReplicateEmulator]]:
    """The emulated OpenAI and Replicate."""
    monkeypatch.setenv(SECRET_VARIABLE, REPLICATE_SECRET)
    monkeypatch.setenv("LETHE_TEST_OPENAI", OPENAI_SECRET)
    openai, films = OpenAIEmulator(), ReplicateEmulator()
    films.states = []
    with running(openai), running(films):
        yield openai, films


def config(openai: OpenAIEmulator, films: ReplicateEmulator) -> str:
    """Words and edits at OpenAI, films at Replicate."""
    operations = ("generate", "edit", "photoshoot")
    tables = OPENAI.format(url=openai.url) + "".join(MODEL.format(operation=name) for name in operations)
    routes = "".join(route(name, "[{ openai = 1 }]") for name in operations)
    return tables + replicate(films.url) + ANIMATE + routes + route("animate", "[{ replicate = 1 }]", deadline_s=120.0)


@pytest.fixture
async def studio(
    settings: Settings, tmp_path: Path, providers: tuple[OpenAIEmulator, ReplicateEmulator]
) -> AsyncGenerator[Studio]:
    """A broker that listens, a relay worker, two providers."""
    plant(PROMPT)
    whole = settings_with(settings, tmp_path, config(*providers))
    with bound("127.0.0.1:0") as client_socket, bound("127.0.0.1:0") as operator_socket:
        async with (
            running_services(whole) as services,
            listening(services, client_socket, operator_socket, closing=asyncio.Event()),
            running_worker(services, whole),
            httpx.AsyncClient(base_url=url_of(client_socket), timeout=40, verify=trust()) as http,
        ):
            token = (await http.post("/v1/users")).json()["token"]
            http.headers["Authorization"] = f"Bearer {token}"
            yield Studio(*providers, http, services)


async def test_words_become_several_pictures(studio: Studio) -> None:
    """
    imaginex-2: JSON without a picture: two outputs, each served; the words reached the provider and no row, log or
    Redis.
    """
    order = {"operation": "generate", "parameters": {"prompt": PROMPT, "count": 2}}

    job = await studio.final(await studio.post(json.dumps(order).encode()))

    assert (job["status"], job["charged"], job["exposure"], len(job["outputs"])) == ("succeeded", True, "logged", 2)
    for output in job["outputs"]:
        assert (await studio.http.get(output["url"])).headers["content-type"] == "image/jpeg"
    (sent,) = studio.openai.requests("generate")
    assert (sent.json()["prompt"], sent.json()["n"]) == (PROMPT, 2)
    assert job["provider_copies"] == "kept"


async def test_several_photos_are_one_order(studio: Studio) -> None:
    """headpix-1: a form with three photos: all three go along, in one order, under neutral names."""
    photos = [photo_bytes(64 + 16 * n, 48) for n in range(3)]
    form = form_of(job_part("photoshoot", parameters={"prompt": PROMPT, "count": 3}), *map(picture_part, photos))

    job = await studio.final(await studio.post(form, CONTENT_TYPE))

    assert (job["status"], len(job["outputs"])) == ("succeeded", 3)
    (sent,) = studio.openai.requests("edit")
    assert sent.body.count(b'name="image[]"') == 3
    assert b"bedroom" not in studio.openai.bytes_seen
    receipt = (await studio.http.get(f"/v1/jobs/{job['id']}/receipt")).text
    assert receipt.count('"what":"upload"') == 3 * 2 + 1 + 1 + 1, "3 blobs, 3 keys, broker, worker, provider"


async def test_a_put_may_carry_words_too(studio: Studio) -> None:
    """One photo by PUT with a prompt in the header: an edit."""
    header = urlsafe_b64encode(json.dumps({"prompt": PROMPT}).encode()).decode()
    answer = await studio.http.put(
        f"/v1/jobs/{uuid4()}?operation=edit", content=photo_bytes(), headers={"Lethe-Parameters": header}
    )

    job = await studio.final(answer)

    assert job["status"] == "succeeded"
    assert PROMPT.encode() in studio.openai.requests("edit")[0].body


async def test_a_picture_becomes_a_film(studio: Studio) -> None:
    """xpictures-1: an MP4 is fetched, cleaned of what it says of its making, encrypted and served like any output."""
    film = marked_mp4()
    studio.films.next("output", Scripted(answer=Answer(body=film, headers={"content-type": "video/mp4"})))
    answer = await studio.http.put(f"/v1/jobs/{uuid4()}?operation=animate&duration_s=5", content=photo_bytes())

    job = await studio.final(answer)

    assert job["status"] == "succeeded", job
    (output,) = job["outputs"]
    assert output["media_type"] == "video/mp4"
    served = await studio.http.get(output["url"], headers={"Range": "bytes=4-7"})
    assert (served.status_code, served.content) == (206, b"ftyp")
    whole = (await studio.http.get(output["url"])).content
    assert b"LETHE-MARKER" in film
    assert b"LETHE-MARKER" not in whole
    assert len(whole) == len(film)


async def test_a_picture_where_a_film_is_due_is_no_success(studio: Studio) -> None:
    """The kind of output is part of the operation."""
    answer = await studio.http.put(f"/v1/jobs/{uuid4()}?operation=animate", content=photo_bytes())

    job = await studio.final(answer)

    assert (job["status"], job["error_code"]) == ("failed", "bad_output")


async def test_a_route_shortens_the_deadline(studio: Studio) -> None:
    """What a route allows is less than the profile's: the job has to end within it."""
    answer = await studio.http.put(f"/v1/jobs/{uuid4()}?operation=animate", content=photo_bytes())
    await studio.final(answer)

    row = await studio.services.stores.database.row(
        "SELECT extract(epoch FROM finish_by - queued_at)::float8 AS within_s FROM jobs WHERE operation = 'animate'"
    )
    assert row is not None
    assert row["within_s"] == pytest.approx(120, abs=1)

"""A job at a provider, from the phone's side: hints over HTTP, what the job object says, what a cancel says."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from broker.app import bound, listening, url_of
from broker.services import Services
from broker.settings import Settings
from tests.emulators.base import running
from tests.emulators.hooks import Ring
from tests.emulators.replicate import SECRET, ReplicateEmulator
from tests.lifecycle import eventually
from tests.relay import SECRET_VARIABLE, photo_bytes, replicate, route, running_worker, settings_with
from tests.stack import running_services


class Phone:
    """One user's view."""

    def __init__(self, http: httpx.AsyncClient, services: Services, provider: ReplicateEmulator) -> None:
        self.http = http
        self.services = services
        self.provider = provider

    async def final(self, query: str = "operation=upscale&scale=2") -> dict[str, Any]:
        """Send a photo, and wait for the end as phones do."""
        path = f"/v1/jobs/{uuid4()}"
        answer = await self.http.put(f"{path}?{query}", content=photo_bytes())
        assert answer.status_code == 202, answer.text
        while "finalized_at" not in answer.json():
            headers = {"Prefer": "wait=20", "If-None-Match": answer.headers["etag"]}
            answer = await self.http.get(path, headers=headers)
        return answer.json()


@pytest.fixture
async def phone(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Phone]:
    """A broker that listens, a relay worker, and a provider that calls back."""
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    provider = ReplicateEmulator(run_s=2.5)
    with (
        running(provider),
        bound("127.0.0.1:0") as client_socket,
        bound("127.0.0.1:0") as operator_socket,
    ):
        config = replicate(provider.url) + route("upscale", "[{ replicate = 1 }]")
        whole = settings_with(settings, tmp_path, config, public_url=url_of(client_socket))
        async with (
            running_services(whole) as services,
            listening(services, client_socket, operator_socket, closing=asyncio.Event()),
            running_worker(services, whole),
            httpx.AsyncClient(base_url=url_of(client_socket), timeout=40) as http,
        ):
            token = (await http.post("/v1/users")).json()["token"]
            http.headers["Authorization"] = f"Bearer {token}"
            yield Phone(http, services, provider)


@pytest.mark.parametrize("rings", [(Ring.DONE,), (Ring.EARLY, Ring.DONE), (Ring.TWICE,), (Ring.FORGED,), ()])
async def test_a_hint_wakes_a_poll_and_is_never_believed(phone: Phone, rings: tuple[Ring, ...]) -> None:
    """On time, early, twice, forged or never: the job ends well, by what a poll says, ordered and charged once."""
    phone.provider.rings = rings

    job = await phone.final()

    assert (job["status"], job["charged"]) == ("succeeded", True)
    assert len(phone.provider.requests("order")) == 1
    hook = phone.provider.requests("order")[0].json()["webhook"]
    assert hook.startswith(f"{phone.http.base_url}/v1/hooks/")
    assert str(job["id"]) not in hook


async def test_a_hint_is_heard_at_once(phone: Phone) -> None:
    """The end is seen when the provider calls, not when the next question would have been asked."""
    phone.provider.run_s = 3.0
    began_s = time.monotonic()

    await phone.final()

    assert time.monotonic() - began_s < 3.0 + 0.9, "the question after 2.4 s would have been asked at 4.1 s"


async def test_the_job_object_tells_exposure_cost_and_copies(phone: Phone) -> None:
    """Flat words and a number; the provider's address is nowhere, the output comes from Lethe."""
    phone.provider.run_s = 0.2

    job = await phone.final()

    assert (job["exposure"], job["provider_copies"], job["cost_usd"]) == ("ephemeral", "expires", 0.00125)
    assert phone.provider.url not in str(job)
    output = await phone.http.get(job["outputs"][0]["url"])
    assert (output.status_code, output.headers["content-type"]) == (200, "image/jpeg")


async def test_a_cancelled_job_says_so_and_what_the_provider_has(phone: Phone) -> None:
    """DELETE while the provider works: canceled and free; the provider is told to stop, and the receipt follows."""
    phone.provider.run_s = 30
    path = f"/v1/jobs/{uuid4()}"
    await phone.http.put(f"{path}?operation=upscale&scale=2", content=photo_bytes())
    await eventually(lambda: is_waiting(phone))

    verdict = (await phone.http.delete(path)).json()

    assert (verdict["status"], verdict["canceled"], verdict["charged"]) == ("canceled", True, False)
    await eventually(lambda: has_word(phone, path, "expires"))
    assert [prediction.status for prediction in phone.provider.predictions.values()] == ["canceled"]


async def is_waiting(phone: Phone) -> bool:
    """Whether the provider has an order whose handle is stored."""
    database = phone.services.stores.database
    return await database.row("SELECT FROM attempts WHERE state = 'waiting'") is not None


async def has_word(phone: Phone, path: str, word: str) -> bool:
    """Whether this is what the job says of copies at providers."""
    return (await phone.http.get(path)).json()["provider_copies"] == word


async def test_operations_tell_who_may_see_a_picture(phone: Phone) -> None:
    """The exposure and the longest stay at a provider that this route may mean."""
    (upscale,) = (await phone.http.get("/v1/operations")).json()["items"]

    assert (upscale["name"], upscale["exposure"]) == ("upscale", "ephemeral")
    assert upscale["retention"]["provider_s"] == 3600

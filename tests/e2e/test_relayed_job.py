"""A job at a provider, from the phone's side: hints over HTTP, what the job object says, what a cancel says."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from broker.app import bound, listening, url_of
from broker.changes import heard
from broker.services import Services
from broker.settings import Settings
from providers.calls import trust
from tests.emulators import fal, replicate
from tests.emulators.base import Seen, running
from tests.emulators.fal import FalEmulator
from tests.emulators.hooks import Ring
from tests.emulators.replicate import ReplicateEmulator
from tests.lifecycle import eventually
from tests.provider_tables import table
from tests.relay import SECRET_VARIABLE, photo_bytes, route, running_worker, settings_with
from tests.stack import running_services
from workers import waiting

Hooking = ReplicateEmulator | FalEmulator
ADDRESSES = ("replicate.com", "replicate.delivery", "/pbxt/", "/v1/files/", "/v1/predictions", "fal.media", "fal.run")
"""What stands in the addresses of emulated providers, and in the errors that they write."""
BOTH = pytest.mark.parametrize("provider", [ReplicateEmulator, FalEmulator], indirect=True, ids=["replicate", "fal"])


class Phone:
    """One user's view."""

    def __init__(self, http: httpx.AsyncClient, services: Services, provider: Hooking) -> None:
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
def provider(request: pytest.FixtureRequest) -> Hooking:
    """A provider that calls back: Replicate, where a test does not say which."""
    made: type[Hooking] = getattr(request, "param", ReplicateEmulator)
    return made(run_s=2.5)


@pytest.fixture
async def phone(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: Hooking
) -> AsyncGenerator[Phone]:
    """A broker that listens, a relay worker, and the provider."""
    name, secret = ("fal", fal.SECRET) if isinstance(provider, FalEmulator) else ("replicate", replicate.SECRET)
    monkeypatch.setenv(SECRET_VARIABLE, secret)
    with (
        running(provider),
        bound("127.0.0.1:0") as client_socket,
        bound("127.0.0.1:0") as operator_socket,
    ):
        config = table(name, provider.url) + route("upscale", f"[{{ {name} = 1 }}]")
        whole = settings_with(settings, tmp_path, config, public_url=url_of(client_socket))
        async with (
            running_services(whole) as services,
            listening(services, client_socket, operator_socket, closing=asyncio.Event()),
            running_worker(services, whole),
            httpx.AsyncClient(base_url=url_of(client_socket), timeout=40, verify=trust()) as http,
        ):
            token = (await http.post("/v1/users")).json()["token"]
            http.headers["Authorization"] = f"Bearer {token}"
            yield Phone(http, services, provider)


@BOTH
@pytest.mark.parametrize("rings", [(Ring.DONE,), (Ring.EARLY, Ring.DONE), (Ring.TWICE,), (Ring.FORGED,), ()])
async def test_a_hint_wakes_a_poll_and_is_never_believed(phone: Phone, rings: tuple[Ring, ...]) -> None:
    """On time, early, twice, forged or never: the job ends well, by what a poll says, ordered and charged once."""
    phone.provider.rings, phone.provider.run_s = rings, 1.5

    job = await phone.final()

    assert (job["status"], job["charged"]) == ("succeeded", True)
    assert len(phone.provider.requests("order")) == 1
    hook = hook_in(phone.provider.requests("order")[0])
    assert hook.startswith(f"{phone.http.base_url}/v1/hooks/")
    assert str(job["id"]) not in hook


def hook_in(order: Seen) -> str:
    """The address that a provider was given to call."""
    return order.query.get("fal_webhook") or str(order.json()["webhook"])


@BOTH
async def test_a_hint_is_heard_at_once(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end is seen when the provider calls, not when the next question would have been asked."""

    async def only(event: asyncio.Event, *, within_s: float) -> bool:
        del within_s
        return await heard(event, within_s=600)

    monkeypatch.setattr(waiting, "heard", only)
    phone.provider.run_s = 1.0

    async with asyncio.timeout(60):
        assert (await phone.final())["status"] == "succeeded"


async def test_the_job_object_tells_exposure_cost_and_copies(phone: Phone) -> None:
    """Flat words and a number; the output comes from Lethe."""
    phone.provider.run_s = 0.2

    job = await phone.final()

    assert (job["exposure"], job["provider_copies"], job["cost_usd"]) == ("ephemeral", "expires", 0.00125)
    output = await phone.http.get(job["outputs"][0]["url"])
    assert (output.status_code, output.headers["content-type"]) == (200, "image/jpeg")


@pytest.mark.parametrize("fault", ["", "moderated", "failed", "no_output", "lost_order"])
@BOTH
async def test_a_provider_s_address_is_shown_nowhere(phone: Phone, fault: str) -> None:
    """However a job ends: no answer, event, problem or receipt holds an address that the provider gave, or its own."""
    phone.provider.run_s = 0.2
    emulator = fal if isinstance(phone.provider, FalEmulator) else replicate
    assert not fault or emulator.script(phone.provider, fault)  # pyright: ignore[reportArgumentType]
    path = f"/v1/jobs/{uuid4()}"
    answer = await phone.http.put(f"{path}?operation=upscale&scale=2", content=photo_bytes())

    events = await phone.http.get(f"{path}/events")  # to its end, which is the job's
    parts = ("", "/receipt", "/outputs/1", "/outputs/none")
    shown = [answer, events, *[await phone.http.get(path + part) for part in parts]]
    shown += [
        await phone.http.delete(path),
        await phone.http.get(f"{path}/outputs/0"),
        await phone.http.get("/v1/jobs"),
    ]

    final, signed, *problems = shown[2:5] + shown[7:8]
    assert (events.text.count("event: end"), final.json()["status"]) == (1, "failed" if fault else "succeeded")
    assert phone.provider.seen, "the provider was asked"
    assert '"provider":"' in signed.text
    assert {problem.headers["content-type"] for problem in problems} == {"application/problem+json"}
    told = "".join(f"{one.headers} {one.text}" for one in shown)
    for address in (phone.provider.url.removeprefix("http://"), *ADDRESSES):
        assert address not in told


async def test_a_cancelled_job_says_so_and_what_the_provider_has(phone: Phone) -> None:
    """DELETE while the provider works: canceled and free; the provider is told to stop, and the receipt follows."""
    phone.provider.run_s = 30
    path = f"/v1/jobs/{uuid4()}"
    await phone.http.put(f"{path}?operation=upscale&scale=2", content=photo_bytes())
    await eventually(lambda: is_waiting(phone))

    verdict = (await phone.http.delete(path)).json()

    assert (verdict["status"], verdict["canceled"], verdict["charged"]) == ("canceled", True, False)
    await eventually(lambda: has_word(phone, path, "expires"))
    assert isinstance(phone.provider, ReplicateEmulator)
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

"""The official client drives the emulator: what it can read, Replicate's own API could have said."""

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import httpx
import pytest
from replicate.client import Client
from replicate.exceptions import ReplicateError
from replicate.webhook import Webhooks, WebhookSigningSecret

from providers.calls import trust
from tests.contract.orders import until
from tests.emulators.base import Answer, Emulator, Seen, answer_json, limited, running
from tests.emulators.hooks import Ring
from tests.emulators.replicate import SECRET, VERSION, ReplicateEmulator


@pytest.fixture
def emulator() -> Iterator[ReplicateEmulator]:
    """Run Replicate."""
    made = ReplicateEmulator()
    with running(made):
        yield made


class Official(Client):
    """The client, and a way to close it."""

    async def aclose(self) -> None:
        """Close its connections."""
        await self._async_client.aclose()


@pytest.fixture
async def client(emulator: ReplicateEmulator) -> AsyncIterator[Official]:
    """Make the client as its documentation says."""
    made = Official(api_token=SECRET, base_url=emulator.url)
    made.poll_interval = 0.001
    yield made
    await made.aclose()


async def test_it_creates_follows_and_finds_predictions(client: Official) -> None:
    """create, get, wait and list of a version."""
    made = await client.predictions.async_create(version=VERSION, input={"prompt": "a boat"})
    assert made.status == "starting"
    assert (await client.predictions.async_get(made.id)).id == made.id
    await made.async_wait()
    assert made.status == "succeeded"
    assert str(made.output).startswith("http")
    assert [found.id for found in (await client.predictions.async_list()).results] == [made.id]


async def test_it_orders_official_models_and_deployments(client: Official, emulator: ReplicateEmulator) -> None:
    """The other two ways to create a prediction."""
    official = await client.models.predictions.async_create(model="acme/flux", input={"prompt": "a boat"})
    assert official.model == "acme/flux"
    deployed = await client.deployments.predictions.async_create("acme/fast", input={"prompt": "a boat"})
    assert deployed.status == "starting"
    paths = [seen.path for seen in emulator.requests("order")]
    assert paths == ["/v1/models/acme/flux/predictions", "/v1/deployments/acme/fast/predictions"]


async def test_it_cancels(client: Official) -> None:
    """A cancelled prediction says so; one that ended stays as it is."""
    made = await client.predictions.async_create(version=VERSION, input={})
    assert (await client.predictions.async_cancel(made.id)).status == "canceled"
    assert (await client.predictions.async_cancel(made.id)).status == "canceled"


async def test_it_keeps_and_deletes_files(client: Official) -> None:
    """create, get, list and delete of files; a deleted one is not found."""
    made = await client.files.async_create(io.BytesIO(b"content"), filename="image.png", content_type="image/png")
    assert (made.name, made.content_type, made.size) == ("image.png", "image/png", 7)
    assert (await client.files.async_get(made.id)).checksums == made.checksums
    assert [found.id for found in await client.files.async_list()] == [made.id]
    assert await client.files.async_delete(made.id)
    with pytest.raises(ReplicateError) as caught:
        await client.files.async_get(made.id)
    assert caught.value.status == 404


async def test_errors_are_problems_that_it_reads(client: Official, emulator: ReplicateEmulator) -> None:
    """A refusal has title, detail and status; the client's transport waits as Retry-After says and asks again."""
    async with aclosing(Official(api_token="wrong", base_url=emulator.url)) as stranger:
        with pytest.raises(ReplicateError) as caught:
            await stranger.accounts.async_current()
    assert (caught.value.status, caught.value.title) == (401, "Unauthenticated")
    emulator.next("account", limited(0))
    assert (await client.accounts.async_current()).username == "acme"
    assert len(emulator.requests("account")) == 3


async def test_it_runs_a_model_to_its_output(client: Official) -> None:
    """run() returns the address of the output, which anybody who has it can read."""
    output = await client.async_run("acme/flux", input={"prompt": "a boat"}, wait=False)
    assert isinstance(output, str)
    async with httpx.AsyncClient(verify=trust(), trust_env=False) as bare:
        assert (await bare.get(output)).content.startswith(b"\x89PNG")


async def test_hooks_are_signed_as_it_checks(client: Official, emulator: ReplicateEmulator) -> None:
    """A hook's signature holds against the secret that the API tells; a hook twice is the same news twice."""
    listener = Emulator()

    async def heard(_seen: Seen, token: str) -> Answer:
        return answer_json({})

    listener.routes = {"POST /hooks/{token}": ("hook", heard)}
    emulator.rings = (Ring.TWICE,)
    with running(listener):
        made = await client.predictions.async_create(version=VERSION, input={}, webhook=f"{listener.url}/hooks/abc")
        await made.async_wait()
        await until(lambda: len(listener.seen) == 2)
    secret: WebhookSigningSecret = await client.webhooks.default.async_secret()
    for seen in listener.seen:
        assert seen.json()["id"] == made.id
        Webhooks.validate(headers=seen.headers, body=seen.body.decode(), secret=secret)

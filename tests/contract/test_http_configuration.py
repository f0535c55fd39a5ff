"""What configuration may say of a plain HTTP API: where its secret goes, and what is refused before a request."""

import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import msgspec
import pytest

from providers import http
from providers.base import File, Model, Setup, Task
from providers.failures import FailureKind, ProviderFailure
from providers.http import Http
from tests.contract.orders import failure_of, order
from tests.emulators.base import Scripted, running
from tests.emulators.http import FORM, JOBS, SECRET, AcmeEmulator, changed, make, refusal


@pytest.fixture
def emulator() -> Iterator[AcmeEmulator]:
    """Run the provider."""
    made = AcmeEmulator()
    with running(made):
        yield made


@pytest.fixture
async def provider(emulator: AcmeEmulator) -> AsyncIterator[Http]:
    """Lend the adapter."""
    made = make(emulator.url)
    await made.warm()
    yield made
    await made.aclose()


def task(operation: str, pictures: tuple[File, ...] | None = None, **changes: object) -> Task:
    """Ask for something."""
    return order(operation, {"scale": 2, "prompt": "a canary"}, pictures, **changes)


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ("bearer", "authorization", f"Bearer {SECRET}"),
        ("header:X-Key", "x-key", SECRET),
        ("header:authorization", "authorization", SECRET),
    ],
)
async def test_the_secret_goes_where_it_is_told_to(emulator: AcmeEmulator, auth: str, header: str, value: str) -> None:
    """Bearer, a header of its own, or, with a word in front, Authorization in another scheme."""
    async with aclosing(make(emulator.url, auth=auth)) as provider:
        await provider.warm()
        await failure_of(provider, task("photoshoot"))
    (seen,) = emulator.requests("now")
    assert seen.headers[header] == value
    assert emulator.bytes_seen.count(SECRET.encode()) == 1


async def test_without_auth_no_secret_is_sent(emulator: AcmeEmulator) -> None:
    """A server of one's own may want none; a secret that would go nowhere is refused."""
    async with aclosing(make(emulator.url, auth="none", secret="")) as provider:
        await provider.warm()
        await failure_of(provider, task("photoshoot"))
    assert "authorization" not in emulator.seen[0].headers


async def test_an_unhealthy_provider_is_told(provider: Http, emulator: AcmeEmulator) -> None:
    """Whatever answers the health path with an error is not healthy."""
    await provider.healthy()
    emulator.next("status", Scripted(answer=refusal(503, "down")))
    with pytest.raises(ProviderFailure) as caught:
        await provider.healthy()
    assert caught.value.kind is FailureKind.OVERLOADED


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (changed(JOBS, path="v1/jobs"), "path has to be"),
        (changed(JOBS, path="//elsewhere.example/x"), "path has to be"),
        (changed(JOBS, poll_path="/v1/jobs"), "poll_path has to hold"),
        (changed(JOBS, poll_path=""), "id and poll_path"),
        (changed(JOBS, id="", poll_path=""), "needs id"),
        (changed(JOBS, id="job.id"), "JSON pointer"),
        (changed(JOBS, done=[]), "state and done"),
        (changed(JOBS, deleted=[]), "say which"),
        (changed(JOBS, poll_after_s=0), "poll_after_s"),
        (changed(JOBS, headers={"Authorization": "Bearer canary"}), "Authorization is not sent"),
        (changed(JOBS, headers={"X-Api-Key": "canary"}), "X-Api-Key is not sent"),
        (changed(JOBS, headers={"X-User-Id": "canary"}), "X-User-Id is not sent"),
        (changed(JOBS, headers={"Cookie": "canary"}), "Cookie is not sent"),
        (msgspec.structs.replace(FORM, input={"a": {"image": "$image"}}), "field of its own"),
        (msgspec.structs.replace(FORM, input={"a": "$scale:canary"}), "has to be JSON"),
    ],
)
async def test_a_wrong_description_is_refused_with_its_reason(
    emulator: AcmeEmulator, model: Model, reason: str
) -> None:
    """warm() names the operation and what to mend, and repeats no value."""
    async with aclosing(make(emulator.url, upscale=model)) as provider:
        with pytest.raises(ProviderFailure, match=f"upscale: .*{reason}") as caught:
            await provider.warm()
    assert caught.value.kind is FailureKind.UNSUPPORTED
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(("auth", "secret"), [("basic", SECRET), ("bearer", ""), ("none", SECRET)])
async def test_auth_and_secret_have_to_fit(emulator: AcmeEmulator, auth: str, secret: str) -> None:
    """An unknown scheme, a missing secret and a useless one are refused."""
    async with aclosing(make(emulator.url, auth=auth, secret=secret)) as provider:
        with pytest.raises(ProviderFailure, match="options: ") as caught:
            await provider.warm()
    assert caught.value.kind is FailureKind.UNSUPPORTED


def test_an_unknown_option_is_refused(emulator: AcmeEmulator) -> None:
    """A misspelt option never counts as absent."""
    with pytest.raises(ProviderFailure, match="poll_pth"):
        make(emulator.url, upscale=changed(JOBS, poll_pth="/x/{id}"))


async def test_the_documented_example_holds() -> None:
    """What the module shows is read, and found to be right."""
    lines = (http.__doc__ or "").splitlines()
    document = tomllib.loads("\n".join(line for line in lines if line.startswith("    ")))
    acme = document["provider"]["acme"]
    models = msgspec.convert(acme["operation"], dict[str, Model])
    async with aclosing(
        Http(Setup(base_url=acme["base_url"], models=models, secret="s", options=acme["options"]))
    ) as provider:
        await provider.warm()

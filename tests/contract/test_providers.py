"""What every in-house provider keeps: a new one joins with one line in CASES; adapters do in cases.py."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from providers.base import Deletes, Exposure, Handle, Pixels, Progress, Provider, Purge, Snapshot, Takes, Task, Upload
from providers.failures import FailureKind, ProviderFailure
from tests.pictures import in_memory, photo, upload_in_memory
from tests.reporters import Heard, Unheard
from workers.models.noop import Noop
from workers.models.registry import in_house, speeds
from workers.models.restyle import Pencil
from workers.models.upscale import Upscale

MODELS_DIR = Path(__file__).parents[2] / ".lethe" / "data" / "models"
CANARY = b"canary-7f3a" * 9


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One provider, and a task that it can do in a second or so; `wrong` are parameters that it refuses."""

    make: Callable[[], Provider]
    operation: str
    parameters: dict[str, str | int] = {}
    wrong: dict[str, str | int] | None = None


CASES = {
    "realesrgan": Case(make=lambda: Upscale(MODELS_DIR), operation="upscale", wrong={"scale": 7}),
    "pencil": Case(make=Pencil, operation="restyle", parameters={"filter": "pencil"}, wrong={"filter": "oil"}),
    "noop": Case(make=Noop, operation="noop"),
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Each case in turn."""
    return CASES[request.param]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider(case: Case) -> AsyncIterator[Provider]:
    """Lend the case's provider, warm."""
    made = case.make()
    await made.warm()
    yield made
    await made.aclose()


@pytest.fixture
def picture(case: Case) -> Pixels | Upload:
    """Make a picture in the form that the provider takes, large enough for several steps."""
    if case.make().terms.takes is Takes.UPLOAD:
        return upload_in_memory(CANARY + os.urandom(3 << 20))
    return in_memory(photo(560, 200))


def task(case: Case, picture: Pixels | Upload, **changes: object) -> Task:
    """Ask for the case's own task."""
    whole = Task(attempt="a1", operation=case.operation, parameters=case.parameters, pictures=(picture,), deadline_s=60)
    return msgspec.structs.replace(whole, **changes)


def content(picture: Pixels | Upload) -> bytes:
    """Read shared memory."""
    return os.pread(picture.fd, picture.size_bytes, 0)


async def test_terms_are_readable_without_credentials(case: Case) -> None:
    """Exposure, retention and form stand on the class: what runs here stays here, and needs no key or address."""
    terms = type(case.make()).terms
    assert terms.exposure is Exposure.LOCAL
    assert (terms.retention_s, terms.deletes) == (0, Deletes.NONE)
    assert terms.takes in {Takes.PIXELS, Takes.UPLOAD}
    assert case.operation in terms.operations
    assert terms.base_url == ""
    assert {terms.needs_secret, terms.gives_urls, terms.takes_hooks} == {False}


async def test_it_delivers_one_result(case: Case, provider: Provider, picture: Pixels | Upload) -> None:
    """submit() ends with pixels in shared memory that are as long as they say, or a finished file with its type."""
    before = content(picture)
    snapshot = await provider.submit(task(case, picture), Unheard())
    assert snapshot.progress is Progress.SUCCEEDED
    (output,) = snapshot.outputs
    assert not output.url
    assert (output.pixels is None) != (output.data is None)
    if output.pixels is not None:
        assert os.fstat(output.pixels.fd).st_size == output.pixels.size_bytes
        assert output.pixels.fd != picture.fd
        os.close(output.pixels.fd)
    else:
        assert output.data
        assert output.media_type
    assert snapshot.model_s >= 0
    assert content(picture) == before


async def test_progress_rises_to_one(case: Case, provider: Provider, picture: Pixels | Upload) -> None:
    """Shares never fall, stay within 0 to 1, and the last is 1.0; no handle is reported, since nothing stays behind."""
    heard = Heard()
    _close(await provider.submit(task(case, picture), heard))
    assert heard.shares == sorted(heard.shares)
    assert heard.shares[0] >= 0
    assert heard.shares[-1] == pytest.approx(1.0)
    assert heard.handles == []


async def test_an_unknown_operation_is_unsupported(case: Case, provider: Provider, picture: Pixels | Upload) -> None:
    """A wrong route is named as such."""
    with pytest.raises(ProviderFailure) as caught:
        await provider.submit(task(case, picture, operation="fly"), Unheard())
    assert caught.value.kind is FailureKind.UNSUPPORTED


async def test_wrong_parameters_are_invalid_input(case: Case, provider: Provider, picture: Pixels | Upload) -> None:
    """A value outside the choices is refused before any work, without repeating it."""
    if case.wrong is None:
        assert not case.parameters
        return
    with pytest.raises(ProviderFailure) as caught:
        await provider.submit(task(case, picture, parameters=case.wrong), Unheard())
    assert caught.value.kind is FailureKind.INVALID_INPUT
    assert not any(str(value) in str(caught.value) for value in case.wrong.values())


async def test_the_wrong_form_is_invalid_input(case: Case, provider: Provider) -> None:
    """Pixels where a file is due, or the other way round, are refused."""
    wrong = in_memory(photo(2, 2)) if provider.terms.takes is Takes.UPLOAD else upload_in_memory(CANARY)
    with pytest.raises(ProviderFailure) as caught:
        await provider.submit(task(case, wrong), Unheard())
    assert caught.value.kind is FailureKind.INVALID_INPUT


async def test_the_wrong_number_of_pictures_is_invalid_input(
    case: Case, provider: Provider, picture: Pixels | Upload
) -> None:
    """A model here takes one picture, neither none nor two."""
    for pictures in ((), (picture, picture)):
        with pytest.raises(ProviderFailure) as caught:
            await provider.submit(task(case, picture, pictures=pictures), Unheard())
        assert caught.value.kind is FailureKind.INVALID_INPUT


async def test_nothing_stays_to_be_asked_for(case: Case, provider: Provider) -> None:
    """What answers at once knows no attempt afterwards: polls are LOST, nothing is stopped, nothing is deleted."""
    handle = Handle(id="a1", operation=case.operation)
    with pytest.raises(ProviderFailure) as caught:
        await provider.poll(handle)
    assert caught.value.kind is FailureKind.LOST
    assert not await provider.cancel(handle)
    assert await provider.purge(handle) == Purge()
    await provider.healthy()


async def test_shared_memory_that_is_too_short_is_invalid_input(
    case: Case, provider: Provider, picture: Pixels | Upload
) -> None:
    """A picture that ends early fails the task, never the process."""
    os.ftruncate(picture.fd, picture.size_bytes - 1)
    with pytest.raises(ProviderFailure) as caught:
        await provider.submit(task(case, picture), Unheard())
    assert caught.value.kind is FailureKind.INVALID_INPUT


async def test_a_cancelled_run_leaves_nothing(case: Case, provider: Provider, picture: Pixels | Upload) -> None:
    """CancelledError comes back, and no descriptor more than before is open."""
    before = _descriptors()
    running = asyncio.create_task(provider.submit(task(case, picture), Unheard()))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    del running
    assert _descriptors() == before


async def test_it_works_again_after_a_cancel(case: Case, provider: Provider, picture: Pixels | Upload) -> None:
    """A cancel ends one run, not the provider."""
    running = asyncio.create_task(provider.submit(task(case, picture), Unheard()))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    _close(await provider.submit(task(case, picture), Unheard()))


async def test_two_runs_at_once_both_deliver(case: Case, provider: Provider, picture: Pixels | Upload) -> None:
    """Runs side by side, or in turn, do not disturb each other."""
    one, other = await asyncio.gather(*(provider.submit(task(case, picture), Unheard()) for _ in range(2)))
    (first,), (second,) = one.outputs, other.outputs
    if first.pixels is not None and second.pixels is not None:
        assert content(first.pixels) == content(second.pixels)
    else:
        assert first.data == second.data
    _close(one)
    _close(other)


async def test_closing_twice_is_closing(case: Case) -> None:
    """aclose is idempotent, also on a provider that was never warm."""
    made = case.make()
    await made.aclose()
    await made.aclose()


def _close(snapshot: Snapshot) -> None:
    for output in snapshot.outputs:
        if output.pixels is not None:
            os.close(output.pixels.fd)


def _descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


async def test_the_registry_knows_every_in_house_provider() -> None:
    """Names are those of the classes, each has a case here, and only warm providers have a speed."""
    providers = in_house(MODELS_DIR)
    assert {name: vars(type(provider))["name"] for name, provider in providers.items()} == {n: n for n in providers}
    assert set(providers) <= set(CASES)
    assert speeds(providers) == {}
    async with aclosing(providers["pencil"]) as pencil:
        await pencil.warm()
        assert set(speeds(providers)) == {"pencil"}

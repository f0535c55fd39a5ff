"""What the ComfyUI adapter says of a purge: only what was seen; files first, the record last."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from providers.base import Handle, Part, Purge, Task
from providers.comfyui import ComfyUI
from providers.failures import FailureKind, ProviderFailure
from tests.contract.orders import finish, finished, task
from tests.emulators.base import Scripted, broken, running
from tests.emulators.comfyui import CASE, ComfyEmulator, make
from tests.emulators.comfyui_records import PROMPT, refusal
from tests.reporters import Heard

ALL = frozenset({Part.UPLOAD, Part.OUTPUT, Part.RECORD})


@pytest.fixture(params=[False, True], ids=["jobs", "history"])
def emulator(request: pytest.FixtureRequest) -> Iterator[ComfyEmulator]:
    """Run a server with /api/jobs, and one without."""
    made = ComfyEmulator(is_old=request.param)
    with running(made):
        yield made


@pytest.fixture
async def provider(emulator: ComfyEmulator) -> AsyncIterator[ComfyUI]:
    """Lend the adapter."""
    made = make(emulator.url)
    yield made
    await made.aclose()


async def done(provider: ComfyUI, wanted: Task | None = None) -> Handle:
    """Order a task, follow it to its end, and return its handle."""
    return await finished(provider, wanted or task(CASE))


async def test_nothing_is_left(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """Every file is empty and the record with the words is gone; another process says the same once more."""
    handle = await done(provider)
    assert len(emulator.files) == 2
    assert all(emulator.files.values())
    assert any(PROMPT in str(run.graph) for run in emulator.runs.values())
    assert await provider.purge(handle) == Purge(deleted=ALL)
    assert set(emulator.files.values()) == {b""}
    assert emulator.runs == {}
    async with aclosing(make(emulator.url)) as other:
        assert await other.purge(handle) == Purge(deleted=ALL)
    with pytest.raises(ProviderFailure) as caught:
        await provider.poll(handle)
    assert caught.value.kind is FailureKind.LOST


async def test_everything_that_a_job_shows_is_emptied(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """Previews on the way and files in folders of their own go too, whether they were outputs or not."""
    emulator.files["temp", "", "way.png"] = emulator.files["output", "film/a", "clip.mp4"] = b"canary"
    emulator.files["output", "", "others.png"] = b"not ours"
    clip = {"filename": "clip.mp4", "subfolder": "film/a", "type": "output"}
    emulator.shows = {
        "3": {"images": [{"filename": "way.png", "subfolder": "", "type": "temp"}]},
        "9": {"gifs": [clip]},
    }
    assert await provider.purge(await done(provider)) == Purge(deleted=ALL)
    assert {where for where, content in emulator.files.items() if content} == {("output", "", "others.png")}


async def test_files_that_go_on_being_served_are_told(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """A server that accepts and keeps: nothing counts as deleted, and the record that names the files stays."""
    handle = await done(provider)
    emulator.is_keeping_files = True
    assert await provider.purge(handle) == Purge(still_served=ALL)
    assert emulator.requests("forget") == []
    emulator.is_keeping_files = False
    assert await provider.purge(handle) == Purge(deleted=ALL)


async def test_a_record_that_stays_is_told(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """A deletion that is answered with success and changes nothing is seen."""
    handle = await done(provider)
    emulator.is_keeping_records = True
    purge = await provider.purge(handle)
    assert purge == Purge(deleted=ALL - {Part.RECORD}, still_served=frozenset({Part.RECORD}))


async def test_after_a_restart_nothing_is_said_of_outputs(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """The history is lost, and what was saved with it: outputs are neither deleted nor served, as far as is known."""
    handle = await done(provider)
    emulator.files["output", "", "ComfyUI_00001_.png"] = b"saved, and named by nobody"
    emulator.restart()
    assert await provider.purge(handle) == Purge(deleted=ALL - {Part.OUTPUT})


async def test_an_order_that_was_refused_left_no_output(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """The upload is still there, so the history is whole and knows no job: its picture is emptied, and that is all."""
    heard = Heard()
    emulator.next("order", Scripted(answer=refusal("2", "scale_by", "value_bigger_than_max")))
    with pytest.raises(ProviderFailure):
        await provider.submit(task(CASE), heard)
    assert await provider.purge(heard.handle) == Purge(deleted=ALL)
    assert set(emulator.files.values()) == {b""}


async def test_a_job_that_was_taken_from_the_queue_left_no_output(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """Cancelled before it ran: all that was there is its upload."""
    emulator.states = ["pending"] * 50
    heard = Heard()
    await provider.submit(task(CASE), heard)
    assert await provider.cancel(heard.handle)
    assert await provider.purge(heard.handle) == Purge(deleted=ALL)


async def test_a_job_that_failed_is_forgotten(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """Its record holds the words, and what a node said of them."""
    emulator.ending = "failed"
    heard = Heard()
    with pytest.raises(ProviderFailure):
        await finish(provider, await provider.submit(task(CASE), heard), heard)
    assert await provider.purge(heard.handle) == Purge(deleted=ALL)
    assert emulator.runs == {}


async def test_a_running_job_is_not_purged(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """Its outputs are still to come: purge fails, so that it is asked again."""
    emulator.run_s = 50.0
    heard = Heard()
    await provider.submit(task(CASE), heard)
    with pytest.raises(ProviderFailure) as caught:
        await provider.purge(heard.handle)
    assert caught.value.kind is FailureKind.OVERLOADED
    assert await provider.cancel(heard.handle)
    assert (await provider.purge(heard.handle)).deleted == ALL


@pytest.mark.parametrize("route", ["length", "upload", "forget"])
async def test_a_purge_that_meets_an_error_says_nothing(provider: ComfyUI, emulator: ComfyEmulator, route: str) -> None:
    """An answer that is no success is no deletion: purge fails, and the next one ends it."""
    handle = await done(provider)
    emulator.next(route, broken(500))
    with pytest.raises(ProviderFailure):
        await provider.purge(handle)
    assert await provider.purge(handle) == Purge(deleted=ALL)


async def test_a_handle_that_was_stored_too_early_is_enough(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """Nothing was sent for it: purge finds nothing, and leaves nothing."""
    assert await provider.purge(Handle(id=task(CASE).attempt, operation="upscale")) == Purge(deleted=ALL)
    assert emulator.files == {}

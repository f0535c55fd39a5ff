"""The ComfyUI adapter against emulated servers, newer ones and those before /api/jobs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from providers.base import Handle, Progress
from providers.comfyui import ComfyUI
from providers.failures import FailureKind, ProviderFailure
from tests.contract.orders import failure_of, finish, run, task
from tests.emulators.base import LOST_AFTER_WORK, Scripted, answer_json, running
from tests.emulators.comfyui import CASE, ComfyEmulator, make
from tests.emulators.forms import fields_of, files_in
from tests.reporters import Heard


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
    await made.warm()
    yield made
    await made.aclose()


async def test_a_picture_goes_to_the_temp_folder(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """It is named by the attempt and its place, and may be written again under that name."""
    wanted = task(CASE)
    await run(provider, wanted)
    (seen,) = emulator.requests("upload")
    (part,) = files_in(seen)
    assert (part.name, part.file_name) == ("image", f"{wanted.attempt}-1.jpg")
    assert part.content[:3] == b"\xff\xd8\xff"
    assert fields_of(seen) == {"type": "temp", "subfolder": "", "overwrite": "true"}


async def test_all_that_may_exist_is_told_before_anything_is_sent(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """The handle names the job and every upload while the server has seen nothing."""

    class Watching(Heard):
        async def accepted(self, handle: Handle) -> None:
            await super().accepted(handle)
            assert emulator.seen == []

    heard, wanted = Watching(), task(CASE)
    await provider.submit(wanted, heard)
    assert heard.handles == [Handle(id=wanted.attempt, operation="upscale", uploads=(f"{wanted.attempt}-1.jpg",))]


async def test_the_same_order_again_is_not_done_twice(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """After a lost answer or a crash the attempt is found: pending, running or done, and queued once."""
    wanted, heard = task(CASE), Heard()
    emulator.next("order", LOST_AFTER_WORK)
    with pytest.raises(ProviderFailure) as caught:
        await provider.submit(wanted, heard)
    assert caught.value.kind is FailureKind.UNCERTAIN
    emulator.states = ["pending"]
    async with aclosing(make(emulator.url)) as other:
        snapshot = await other.submit(wanted, heard)
        assert snapshot.progress is not Progress.SUCCEEDED
        assert (await finish(other, snapshot, heard)).outputs
        assert (await other.submit(wanted, heard)).progress is Progress.SUCCEEDED
        assert emulator.started == 1
        assert len(emulator.requests("upload")) == 1


async def test_a_server_that_chooses_ids_is_asked_by_its_own(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """Where the answer names another id, that one is stored."""
    heard = Heard()
    emulator.next("order", Scripted(answer=answer_json({"prompt_id": "theirs", "number": 1, "node_errors": {}})))
    await provider.submit(task(CASE), heard)
    assert heard.handle.id == "theirs"
    assert heard.handle.uploads == heard.handles[0].uploads


@pytest.mark.parametrize(
    ("error", "kind", "detail"),
    [
        ({"exception_type": "torch.OutOfMemoryError"}, FailureKind.OVERLOADED, "out_of_memory"),
        ({"exception_message": "Allocation on device canary"}, FailureKind.OVERLOADED, "out_of_memory"),
        ({"exception_type": "safetensors.SafetensorError"}, FailureKind.PROVIDER_ERROR, "SafetensorError"),
        ({"exception_type": "canary at http://10.0.0.9"}, FailureKind.PROVIDER_ERROR, "failed"),
        ({}, FailureKind.PROVIDER_ERROR, "failed"),
    ],
)
async def test_how_a_node_failed_is_told_by_a_word(
    emulator: ComfyEmulator, provider: ComfyUI, error: dict[str, str], kind: FailureKind, detail: str
) -> None:
    """The class of an exception is told, its text is not; no memory means that another may do it."""
    emulator.ending, emulator.error = "failed", error
    failure = await failure_of(provider, task(CASE))
    assert failure is not None
    assert (failure.kind, failure.detail) == (kind, detail)


@pytest.mark.parametrize("name", ["images", "gifs", "video", "a_list_of_its_own"])
async def test_films_are_found_whatever_their_list_is_called(
    provider: ComfyUI, emulator: ComfyEmulator, name: str
) -> None:
    """Nodes that write films show them under several names."""
    emulator.saves_as = (name, "mp4")
    (output,) = (await run(provider, task(CASE))).outputs
    assert output.media_type == "video/mp4"
    assert (output.data or b"")[4:8] == b"ftyp"


async def test_saved_files_come_before_previews_and_a_pointer_chooses(emulator: ComfyEmulator) -> None:
    """Where something is saved, previews on the way are no outputs; `output` chooses; text is nothing."""
    for folder, name in (("temp", "way.png"), ("output", "a.png"), ("output", "b.png"), ("output", "words.txt")):
        emulator.files[folder, "", name] = name.encode()
    saved = [{"filename": name, "subfolder": "", "type": "output"} for name in ("words.txt", "a.png", "b.png")]
    emulator.shows = {"3": {"images": [{"filename": "way.png", "type": "temp"}]}, "9": {"images": saved, "text": ["x"]}}
    for output, most, expected in (("", 1, [b"a.png"]), ("", 4, [b"a.png", b"b.png"]), ("/3", 4, [b"way.png"])):
        async with aclosing(make(emulator.url, output=output, max_outputs=most)) as provider:
            assert [found.data for found in (await run(provider, task(CASE))).outputs] == expected


async def test_a_file_that_is_not_there_is_no_output(emulator: ComfyEmulator, provider: ComfyUI) -> None:
    """A job whose file is gone, or empty, or whose pointer finds nothing, has BAD_OUTPUT."""
    emulator.files["output", "", "empty.png"] = b""
    for name in ("gone.png", "empty.png"):
        emulator.shows = {"9": {"images": [{"filename": name, "subfolder": "", "type": "output"}]}}
        failure = await failure_of(provider, task(CASE))
        assert failure is not None
        assert failure.kind is FailureKind.BAD_OUTPUT
    async with aclosing(make(emulator.url, output="/7/images")) as elsewhere:
        failure = await failure_of(elsewhere, task(CASE))
        assert failure is not None
        assert failure.kind is FailureKind.BAD_OUTPUT


async def test_a_cancelled_job_does_not_go_on(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """In the queue or running, it is stopped and seen to be; another's job that runs is left alone."""
    emulator.run_s = 50.0
    heard, other = Heard(), Heard()
    await provider.submit(task(CASE), heard)
    await provider.submit(task(CASE), other)
    emulator.runs[other.handle.id].state = "pending"
    assert await provider.cancel(other.handle)
    assert emulator.requests("interrupt") == []
    assert (await provider.poll(heard.handle)).progress is Progress.RUNNING
    assert await provider.cancel(heard.handle)
    with pytest.raises(ProviderFailure) as caught:
        await provider.poll(heard.handle)
    assert caught.value.kind is FailureKind.CANCELED


async def test_a_job_that_ends_under_a_cancel_keeps_its_output(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """The cancel arrives as the job ends: False, and what it made is there."""
    heard = Heard()
    await provider.submit(task(CASE), heard)
    emulator.runs[heard.handle.id].states = []
    emulator.next("unqueue" if emulator.is_old else "cancel", Scripted(answer=answer_json({"cancelled": False})))
    assert not await provider.cancel(heard.handle)
    assert (await provider.poll(heard.handle)).outputs


async def test_a_node_that_looks_at_no_interrupt_is_not_called_stopped(
    provider: ComfyUI, emulator: ComfyEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancel watches for a moment, and then says that the job may go on."""
    monkeypatch.setattr("providers.comfyui.STOPPED_WITHIN_S", 0.3)
    emulator.run_s = 50.0
    heard = Heard()
    await provider.submit(task(CASE), heard)
    emulator.next("interrupt" if emulator.is_old else "cancel", Scripted(answer=answer_json({"cancelled": True})))
    assert not await provider.cancel(heard.handle)
    assert (await provider.poll(heard.handle)).progress is Progress.RUNNING


async def test_looks_that_cross_the_end_of_a_job_find_it() -> None:
    """On a server without /api/jobs a job may leave the queue between two questions; it is not called unknown."""
    emulator = ComfyEmulator(is_old=True)
    with running(emulator):
        heard = Heard()
        async with aclosing(make(emulator.url)) as provider:
            await provider.submit(task(CASE), heard)
            emulator.next("entry", Scripted(answer=answer_json({})))
            emulator.next(
                "queue", Scripted(answer=answer_json({"queue_running": [], "queue_pending": []}), is_done_first=True)
            )
            emulator.runs[heard.handle.id].states = []
            assert (await asyncio.wait_for(provider.poll(heard.handle), 5)).outputs

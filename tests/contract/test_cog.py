"""The Cog adapter, against an emulated container."""

import asyncio
import io
from collections.abc import Iterator
from contextlib import aclosing

import msgspec
import pytest
from PIL import Image

from providers.base import Handle, Model, Setup, Snapshot
from providers.cog import Cog
from providers.failures import FailureKind, ProviderFailure
from tests.contract.orders import failure_of, task, until
from tests.emulators.base import Answer, Scripted, answer_json, running
from tests.emulators.cog import CASE, CogEmulator, make
from tests.reporters import Heard

FOR_EVER_S = 50.0


@pytest.fixture
def emulator() -> Iterator[CogEmulator]:
    """Run an emulated container."""
    made = CogEmulator()
    with running(made):
        yield made


def size(snapshot: Snapshot) -> tuple[int, int]:
    """Open the only output."""
    (output,) = snapshot.outputs
    return Image.open(io.BytesIO(output.data or b"")).size


async def test_the_handle_is_told_before_the_order(emulator: CogEmulator) -> None:
    """A reporter that cannot store the handle ends submit before anything is sent."""

    class Full(Heard):
        async def accepted(self, handle: Handle) -> None:
            raise OSError("no room")

    async with aclosing(make(emulator.url)) as adapter:
        with pytest.raises(OSError, match="no room"):
            await adapter.submit(task(CASE), Full())
        assert emulator.seen == []


async def test_there_is_nothing_to_poll(emulator: CogEmulator) -> None:
    """poll() is LOST without asking: the order is sent again instead."""
    async with aclosing(make(emulator.url)) as adapter:
        with pytest.raises(ProviderFailure) as caught:
            await adapter.poll(Handle(id="a", operation="upscale"))
        assert caught.value.kind is FailureKind.LOST
        assert emulator.seen == []


async def test_an_orphan_that_does_not_stop_is_waited_for_until_the_deadline(emulator: CogEmulator) -> None:
    """A model that looks at no cancel is told once; the order waits for its slot, and gives up in time."""
    emulator.run_s, emulator.is_stubborn = FOR_EVER_S, True
    async with aclosing(make(emulator.url)) as adapter:
        wanted = msgspec.structs.replace(task(CASE), deadline_s=1.2)
        orphan = asyncio.create_task(adapter.submit(msgspec.structs.replace(wanted, deadline_s=60.0), Heard()))
        await until(lambda: emulator.started)
        with pytest.raises(ProviderFailure) as caught:
            await adapter.submit(wanted, Heard())
        assert caught.value.kind is FailureKind.TIMEOUT
        assert len(emulator.requests("cancel")) == 1
        assert len(emulator.started) == 1
        orphan.cancel()
        await asyncio.wait([orphan])


@pytest.mark.parametrize("body", [b"event: start\ndata: {}\n\n", b'event: error\ndata: {"error": "lagged"}\n\n', b""])
async def test_a_stream_without_an_end_is_uncertain(body: bytes) -> None:
    """A stream that ends before its prediction says nothing of the outcome."""
    emulator = CogEmulator(streams=True)
    with running(emulator):
        emulator.next("order", Scripted(answer=Answer(body=body, headers={"content-type": "text/event-stream"})))
        async with aclosing(make(emulator.url, streams=True)) as adapter:
            failure = await failure_of(adapter, task(CASE))
            assert failure is not None
            assert failure.kind is FailureKind.UNCERTAIN
            assert size(await adapter.submit(task(CASE), Heard())) == (128, 96)


async def test_a_model_that_does_not_stream_is_named(emulator: CogEmulator) -> None:
    """`streams` for a model that is not declared so is refused by Cog before it works: UNSUPPORTED."""
    async with aclosing(make(emulator.url, streams=True)) as adapter:
        failure = await failure_of(adapter, task(CASE))
        assert failure is not None
        assert failure.kind is FailureKind.UNSUPPORTED
        assert emulator.started == []


@pytest.mark.parametrize("output", ["https://uploads.example/canary.png", ["http://10.0.0.9/canary.png"], "canary", 7])
async def test_only_data_uris_are_outputs(emulator: CogEmulator, output: object) -> None:
    """An output that Cog uploaded elsewhere, or that is no picture, is BAD_OUTPUT: nobody would delete it."""
    emulator.ending = {"output": output}
    async with aclosing(make(emulator.url)) as adapter:
        failure = await failure_of(adapter, task(CASE))
        assert failure is not None
        assert failure.kind is FailureKind.BAD_OUTPUT


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("STARTING", FailureKind.OVERLOADED),
        ("SETUP_FAILED", FailureKind.PROVIDER_ERROR),
        ("DEFUNCT", FailureKind.PROVIDER_ERROR),
        ("UNHEALTHY", FailureKind.PROVIDER_ERROR),
    ],
)
async def test_a_container_that_is_not_ready_is_not_healthy(
    emulator: CogEmulator, status: str, kind: FailureKind
) -> None:
    """Its health answer is always 200; the word in it decides."""
    emulator.status = status
    async with aclosing(make(emulator.url)) as adapter:
        with pytest.raises(ProviderFailure) as caught:
            await adapter.healthy()
        assert caught.value.kind is kind


async def test_a_status_that_is_no_end_is_uncertain(emulator: CogEmulator) -> None:
    """An answer that leaves the prediction under way ends our connection to it."""
    emulator.next("order", Scripted(answer=answer_json({"id": "a", "status": "processing"})))
    async with aclosing(make(emulator.url)) as adapter:
        failure = await failure_of(adapter, task(CASE))
        assert failure is not None
        assert failure.kind is FailureKind.UNCERTAIN


def test_a_wrong_option_is_named() -> None:
    """A misspelled option ends the start, not an order."""
    with pytest.raises(msgspec.ValidationError, match="stream"):
        Cog(Setup(base_url="http://127.0.0.1:9", models={"upscale": Model(options={"stream": True})}))

"""The Cog adapter against Cog's own server, which runs a model of tests/peers_cog in `.peers`."""

import asyncio
import io
import json
import shutil
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from providers.base import Handle, Model, Progress, Purge, Setup, Snapshot, Task
from providers.cog import Cog
from providers.failures import FailureKind, ProviderFailure
from tests.contract.orders import ENOUGH_S, failure_of, task, until
from tests.emulators.cog import CASE
from tests.peers import Peer, free_port, running_peer
from tests.reporters import Heard

MODEL = Path(__file__).parents[1] / "peers_cog"
INPUT = {"image": "$image", "scale": "$scale:2", "slow_s": "$slow_s", "fault": "$fault"}
FOR_EVER_S = 50.0


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A real server and what its model noted."""

    peer: Peer
    folder: Path

    def adapter(self, *, streams: bool = False) -> Cog:
        """Make an adapter to it."""
        model = Model(input=INPUT, options={"streams": streams})
        return Cog(Setup(base_url=self.peer.url, models={"upscale": model}))

    def count(self, event: str) -> int:
        """How many predictions were `started`, or `stopped`."""
        file = self.folder / event
        return len(file.read_text().splitlines()) if file.exists() else 0


@contextmanager
def serving(folder: Path, model: str, *, streams: bool = False) -> Generator[Container]:
    """Run Cog's server with one of the models of tests/peers_cog, as its image would."""
    shutil.copy(MODEL / "predict.py", folder)
    schema = json.loads((MODEL / "openapi_schema.json").read_text())
    schema["paths"]["/predictions"]["post"]["x-cog-streaming"] = streams
    (folder / ".cog").mkdir()
    (folder / ".cog" / "openapi_schema.json").write_text(json.dumps(schema))
    port = free_port()
    with running_peer(
        ["-m", "cog.server.http", "--host", "127.0.0.1"],
        port=port,
        health="/health-check",
        folder=folder,
        is_ready=lambda reply: reply.json()["status"] == "READY",
        environment={"PORT": str(port), "COG_PREDICT_TYPE_STUB": f"predict.py:{model}"},
    ) as peer:
        yield Container(peer=peer, folder=folder)


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Run the model that answers once, for all tests here."""
    with serving(tmp_path_factory.mktemp("cog"), "Predictor") as made:
        yield made


@pytest.fixture
async def adapter(container: Container) -> AsyncIterator[Cog]:
    """Lend an adapter to it, once no prediction of another test takes its slot."""
    async with aclosing(container.adapter()) as made:
        await taken(made, ordered())
        yield made


@pytest.fixture
async def other(container: Container) -> AsyncIterator[Cog]:
    """Lend another process's adapter."""
    async with aclosing(container.adapter()) as made:
        yield made


def ordered(**parameters: str | int | float) -> Task:
    """Ask the real models for something; what they are told beside the scale is no parameter of an operation."""
    return msgspec.structs.replace(task(CASE), parameters=parameters)


def size(snapshot: Snapshot) -> tuple[int, int]:
    """Open the only output."""
    (output,) = snapshot.outputs
    return Image.open(io.BytesIO(output.data or b"")).size


async def taken(adapter: Cog, wanted: Task, heard: Heard | None = None) -> Snapshot:
    """Order, again and again while the slot is taken: it is free a moment after an order was answered or stopped."""
    async with asyncio.timeout(ENOUGH_S):
        while True:
            try:
                return await adapter.submit(wanted, heard or Heard())
            except ProviderFailure as failure:
                if failure.kind is not FailureKind.OVERLOADED:
                    raise
                await asyncio.sleep(0.01)


async def start(adapter: Cog, wanted: Task, container: Container) -> "asyncio.Task[Snapshot]":
    """Order, and return once the model works."""
    before = container.count("started")
    order = asyncio.create_task(taken(adapter, wanted))
    await until(lambda: container.count("started") > before or order.done())
    assert not order.done()
    return order


async def test_a_real_server_does_an_order(adapter: Cog) -> None:
    """Cog 0.23 takes the order as it is sent and gives a picture of the size that was asked for, and its seconds."""
    await adapter.warm()
    await adapter.healthy()
    heard = Heard()
    wanted = ordered(scale=3)
    snapshot = await taken(adapter, wanted, heard)
    assert size(snapshot) == (192, 144)
    assert snapshot.progress is Progress.SUCCEEDED
    assert snapshot.model_s > 0
    assert heard.handle == Handle(id=wanted.attempt, operation="upscale")
    assert await adapter.purge(heard.handle) == Purge()


@pytest.mark.parametrize(
    ("parameters", "kind", "detail"),
    [
        ({"scale": 9}, FailureKind.INVALID_INPUT, "input_scale"),
        ({"fault": "cannot identify canary"}, FailureKind.PROVIDER_ERROR, "failed"),
        ({"fault": "CUDA out of memory. Tried to allocate canary"}, FailureKind.OVERLOADED, "failed"),
        ({"fault": "NSFW content detected: canary"}, FailureKind.CONTENT_REJECTED, "failed"),
    ],
)
async def test_what_a_real_server_refuses_has_its_kind(
    adapter: Cog, parameters: dict[str, str | int | float], kind: FailureKind, detail: str
) -> None:
    """Its schema's refusal names the field; a model's own words decide the kind, and are not repeated."""
    async with asyncio.timeout(ENOUGH_S):
        while (failure := await failure_of(adapter, ordered(**parameters))) is not None and _is_full(failure):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # its slot is free only a moment after it has answered the order before
    assert failure is not None
    assert (failure.kind, failure.detail) == (kind, detail)


def _is_full(failure: ProviderFailure) -> bool:
    return failure.kind is FailureKind.OVERLOADED and failure.detail != "failed"


async def test_a_dropped_order_stops_a_real_prediction(container: Container, adapter: Cog) -> None:
    """When the order's task is cancelled, or its process dies, Cog stops the model and is free again."""
    stopped = container.count("stopped")
    wanted = ordered(slow_s=FOR_EVER_S)
    order = await start(adapter, wanted, container)
    order.cancel()
    with pytest.raises(asyncio.CancelledError):
        await order
    await until(lambda: container.count("stopped") == stopped + 1)
    assert size(await taken(adapter, ordered())) == (128, 96)


async def test_a_real_prediction_is_stopped_by_its_handle(container: Container, adapter: Cog, other: Cog) -> None:
    """Another process cancels with the stored handle; the order ends as CANCELED, and then Cog knows nothing of it."""
    wanted = ordered(slow_s=FOR_EVER_S)
    order = await start(adapter, wanted, container)
    handle = Handle(id=wanted.attempt, operation="upscale")
    assert not await other.cancel(handle)
    with pytest.raises(ProviderFailure) as caught:
        await order
    assert caught.value.kind is FailureKind.CANCELED
    async with asyncio.timeout(ENOUGH_S):
        while not await other.cancel(handle):  # noqa: ASYNC110  only the server knows, and it has to be asked
            await asyncio.sleep(0.01)


async def test_an_order_takes_the_place_of_its_own_orphan(container: Container, adapter: Cog, other: Cog) -> None:
    """The same attempt again, while the first still runs there: the first is stopped, and never do two run at once."""
    started, stopped = container.count("started"), container.count("stopped")
    wanted = ordered(slow_s=1.0)
    orphan = await start(adapter, wanted, container)
    assert size(await taken(other, wanted)) == (128, 96)
    assert container.count("stopped") == stopped + 1
    assert container.count("started") == started + 2
    with pytest.raises(ProviderFailure):
        await orphan


async def test_a_real_full_server_is_overloaded(container: Container, adapter: Cog) -> None:
    """One slot, taken by another attempt: the next order is refused at once, and a busy server is healthy."""
    order = await start(adapter, ordered(slow_s=FOR_EVER_S), container)
    await adapter.healthy()
    failure = await failure_of(adapter, ordered())
    assert failure is not None
    assert failure.kind is FailureKind.OVERLOADED
    order.cancel()
    await asyncio.wait([order])


async def test_an_order_joins_its_own_streaming_prediction(tmp_path: Path) -> None:
    """With `streams`, the same attempt again gets the result of the run that is under way: the model works once."""
    with serving(tmp_path, "Streaming", streams=True) as container:
        one, another = container.adapter(streams=True), container.adapter(streams=True)
        async with aclosing(one) as adapter, aclosing(another) as other:
            wanted = ordered(slow_s=1.0)
            order = await start(adapter, wanted, container)
            assert size(await other.submit(wanted, Heard())) == (128, 96)
            assert size(await order) == (128, 96)
            assert container.count("started") == 1
            failure = await failure_of(adapter, ordered(fault="CUDA out of memory"))
            assert failure is not None
            assert failure.kind is FailureKind.OVERLOADED


async def test_a_server_that_dies_leaves_the_order_uncertain(tmp_path: Path) -> None:
    """The order was sent and nobody answers: UNCERTAIN, after which it may be sent again under its id."""
    with serving(tmp_path, "Predictor") as container:
        async with aclosing(container.adapter()) as adapter:
            order = await start(adapter, ordered(slow_s=FOR_EVER_S), container)
            container.peer.kill()
            with pytest.raises(ProviderFailure) as caught:
                await order
            assert caught.value.kind is FailureKind.UNCERTAIN

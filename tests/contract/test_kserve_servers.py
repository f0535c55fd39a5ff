"""The Open Inference Protocol as others speak it: KServe's server, MLServer, and Triton's client, in `.peers`."""

import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from providers.base import Model, Setup
from providers.failures import FailureKind, ProviderFailure
from providers.kserve import KServe
from tests.contract.orders import failure_of, picture, run, task
from tests.emulators.base import running
from tests.emulators.kserve import CASE, KServeEmulator, elements
from tests.peers import PEERS_PYTHON, Peer, free_port, running_peer

TESTS = Path(__file__).parents[1]
INPUT = {"image": "$image", "scale": "$scale"}
ROW = Model(model="upscaler", input=INPUT, output="/picture", options={"inputs": {"image": {"datatype": "UINT8"}}})
IN_JSON = msgspec.structs.replace(ROW, options={"binary": False})


@pytest.fixture(scope="module")
def kserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """Run KServe's Python server, which has the binary extension."""
    port, folder = free_port(), tmp_path_factory.mktemp("kserve")
    arguments = [str(TESTS / "peers_kserve.py"), str(port)]
    with running_peer(arguments, port=port, health="/v2/models/upscaler/ready", folder=folder) as peer:
        yield peer


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """Run MLServer, which has none."""
    port, folder = free_port(), tmp_path_factory.mktemp("mlserver")
    shutil.copy(TESTS / "peers_mlserver.py", folder)
    server = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_endpoint": None}
    (folder / "settings.json").write_text(json.dumps({**server, "parallel_workers": 0}))
    model = {"name": "upscaler", "implementation": "peers_mlserver.Upscaler"}
    (folder / "model-settings.json").write_text(json.dumps(model))
    arguments = ["-m", "mlserver.cli.main", "start", str(folder)]
    with running_peer(arguments, port=port, health="/v2/models/upscaler/ready", folder=folder) as peer:
        yield peer


@pytest.fixture(params=["kserve-row", "kserve-json", "mlserver-json"])
def served(request: pytest.FixtureRequest) -> tuple[Peer, Model]:
    """Name each server, with each form that it understands."""
    server, _, form = str(request.param).partition("-")
    return request.getfixturevalue(server), ROW if form == "row" else IN_JSON


def adapter(peer: Peer, model: Model) -> KServe:
    """Make an adapter to a real server."""
    return KServe(Setup(base_url=peer.url, models={"upscale": model}))


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png"])
async def test_a_real_server_makes_a_picture_larger(served: tuple[Peer, Model], media_type: str) -> None:
    """What leaves as we write it is read by a server that is not ours, and its answer is read by us."""
    async with aclosing(adapter(*served)) as provider:
        await provider.warm()
        await provider.healthy()
        snapshot = await run(provider, task(CASE, (picture(media_type),)))
    made = Image.open(io.BytesIO(snapshot.outputs[0].data or b""))
    assert (made.format, made.size) == ("PNG", (128, 96))
    made.load()


async def test_what_a_real_server_refuses_has_its_kind(served: tuple[Peer, Model]) -> None:
    """A model that raises is PROVIDER_ERROR; one that is not there is UNSUPPORTED, and not healthy."""
    peer, model = served
    async with aclosing(adapter(peer, model)) as provider:
        raised = await failure_of(provider, task(CASE, parameters={"scale": -2}))
    assert raised is not None
    assert raised.kind is FailureKind.PROVIDER_ERROR
    assert "must be" not in f"{raised!r} {raised.detail}"
    async with aclosing(adapter(peer, msgspec.structs.replace(model, model="absent"))) as absent:
        missing = await failure_of(absent, task(CASE))
        with pytest.raises(ProviderFailure) as caught:
            await absent.healthy()
    assert missing is not None
    assert missing.kind is FailureKind.UNSUPPORTED
    assert caught.value.kind is FailureKind.OVERLOADED


async def test_kserve_cannot_read_pictures_as_elements(kserve: Peer) -> None:
    """Why the documentation says UINT8: when this fails, KServe's server was mended, and the sentence can go."""
    async with aclosing(adapter(kserve, msgspec.structs.replace(ROW, options={}))) as provider:
        failure = await failure_of(provider, task(CASE))
    assert failure is not None
    assert failure.kind is FailureKind.PROVIDER_ERROR


def test_tritons_client_is_served_by_the_emulator(tmp_path: Path) -> None:
    """The emulator reads and writes the binary extension as Triton's own client does."""
    photo = tmp_path / "image.jpg"
    Image.new("RGB", (20, 10), (200, 90, 9)).save(photo)
    emulator = KServeEmulator()
    with running(emulator) as url:
        command = [PEERS_PYTHON, TESTS / "peers_triton.py", url.removeprefix("http://"), photo]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    told = json.loads(done.stdout)
    assert told["is_ready"]
    assert told["metadata"]["inputs"][0] == {"name": "image", "datatype": "BYTES", "shape": [1, 1]}
    assert told["extensions"] == ["binary_tensor_data"]
    assert (told["id"], told["shape"]) == ("a-1", [1, 1])
    assert Image.open(io.BytesIO(bytes.fromhex(told["picture"]))).size == (10, 5)
    assert told["refused"][0] == "404"
    seen = emulator.requests("infer")[0]
    length = int(seen.headers["inference-header-content-length"])
    assert elements(seen.body[length:]) == [photo.read_bytes()]

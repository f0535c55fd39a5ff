"""The Open Inference Protocol adapter: tensors as they travel, and what errors mean."""

import base64
import io
import math
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from PIL import Image

from providers.base import File, Model, Task
from providers.failures import FailureKind, ProviderFailure
from providers.kserve import KServe
from providers.tensors import LENGTH
from tests.contract.orders import failure_of, order, picture, run
from tests.emulators.base import Answer, Scripted, running
from tests.emulators.kserve import UPSCALE, KServeEmulator, answer, elements, make, refusal

ATTEMPT = str(uuid.uuid4())
PNG = b"\x89PNG\r\n\x1a\n and so on"


@pytest.fixture
def emulator() -> Iterator[KServeEmulator]:
    """Run the server."""
    made = KServeEmulator()
    with running(made):
        yield made


@pytest.fixture
async def provider(emulator: KServeEmulator) -> AsyncIterator[KServe]:
    """Lend the adapter."""
    made = make(emulator.url)
    await made.warm()
    yield made
    await made.aclose()


def task(pictures: tuple[File, ...] | None = None, **changes: object) -> Task:
    """Ask for something."""
    return order("upscale", {"scale": 3}, pictures, attempt=ATTEMPT, **changes)


def changed(model: Model = UPSCALE, *, given: dict[str, Any] | None = None, **options: object) -> Model:
    """Return a model with another input, or other options."""
    whole = msgspec.structs.replace(model, options={**model.options, **options})
    return whole if given is None else msgspec.structs.replace(whole, input=given, options={"inputs": {}, **options})


async def asked(emulator: KServeEmulator, model: Model, wanted: Task) -> tuple[dict[str, Any], bytes]:
    """Send a request to a server that takes anything; return its JSON and its tensors."""
    emulator.next("infer", Scripted(answer=answer("", PNG)))
    async with aclosing(make(emulator.url, upscale=model)) as provider:
        await provider.warm()
        await run(provider, wanted)
    (seen,) = emulator.requests("infer")
    length = int(seen.headers.get(LENGTH.lower(), len(seen.body)))
    return msgspec.json.decode(seen.body[:length]), seen.body[length:]


async def test_a_picture_is_one_element_behind_the_json(provider: KServe, emulator: KServeEmulator) -> None:
    """The file travels unencoded; the header says where it starts, and its size is its own and four bytes."""
    photo = picture()
    snapshot = await run(provider, task((photo,)))
    (seen,) = emulator.requests("infer")
    length = int(seen.headers[LENGTH.lower()])
    request = msgspec.json.decode(seen.body[:length])
    assert request == {
        "id": ATTEMPT,
        "inputs": [
            {
                "name": "image",
                "shape": [1, 1],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": photo.size_bytes + 4},
            },
            {"name": "scale", "shape": [1, 1], "datatype": "INT32", "data": [3]},
        ],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "picture", "parameters": {"binary_data": True}}],
    }
    (sent,) = elements(seen.body[length:])
    assert len(sent) == photo.size_bytes
    assert sent[:3] == b"\xff\xd8\xff"
    assert Image.open(io.BytesIO(snapshot.outputs[0].data or b"")).format == "PNG"


async def test_an_answer_in_json_is_read_as_well(provider: KServe, emulator: KServeEmulator) -> None:
    """A server without the extension answers in base64."""
    emulator.is_binary = False
    snapshot = await run(provider, task())
    assert Image.open(io.BytesIO(snapshot.outputs[0].data or b"")).size == (32, 24)


async def test_a_request_may_be_json_alone(emulator: KServeEmulator) -> None:
    """`binary = false` sends base64, and no header of the extension."""
    photo = picture()
    request, rest = await asked(emulator, changed(binary=False), task((photo,)))
    assert rest == b""
    assert LENGTH.lower() not in emulator.seen[0].headers
    image, scale = request["inputs"]
    assert (image["datatype"], image["shape"]) == ("BYTES", [1, 1])
    assert len(base64.b64decode(image["data"][0], validate=True)) == photo.size_bytes
    assert scale["data"] == [3]
    assert "parameters" not in request
    assert request["outputs"] == [{"name": "picture"}]


async def test_a_picture_may_be_a_row_of_bytes(emulator: KServeEmulator) -> None:
    """UINT8 is the file itself, as long as its shape says."""
    photo = picture("image/png")
    model = changed(inputs={"image": {"name": "INPUT__0", "datatype": "UINT8"}})
    request, rest = await asked(emulator, model, task((photo,)))
    head = {"name": "INPUT__0", "shape": [photo.size_bytes], "datatype": "UINT8"}
    assert request["inputs"][0] == {**head, "parameters": {"binary_data_size": photo.size_bytes}}
    assert len(rest) == photo.size_bytes
    assert rest.startswith(b"\x89PNG")


async def test_values_become_tensors_of_their_kind(emulator: KServeEmulator) -> None:
    """Whole numbers are INT32, others FP32, words BYTES, lists as long as they are; options say otherwise."""
    given = {
        "pictures": "$images",
        "whole": "$scale",
        "strength": 0.5,
        "words": "$prompt",
        "flag": True,
        "many": [1, 2.5],
        "absent": "$count",
        "wide": 7,
    }
    wide = {"datatype": "INT64", "shape": [1, 1], "parameters": {"content_type": "np"}}
    wanted = task((picture(), picture(seed=2)), parameters={"scale": 3, "prompt": "über"})
    model = changed(given=given, inputs={"wide": wide}, parameters={"priority": 1})
    request, rest = await asked(emulator, model, wanted)
    tensors = {one["name"]: (one["datatype"], one["shape"], one.get("data")) for one in request["inputs"]}
    assert tensors == {
        "pictures": ("BYTES", [2], None),
        "whole": ("INT32", [1], [3]),
        "strength": ("FP32", [1], [0.5]),
        "words": ("BYTES", [1], ["über"]),
        "flag": ("BOOL", [1], [True]),
        "many": ("FP32", [2], [1, 2.5]),
        "wide": ("INT64", [1, 1], [7]),
    }
    assert len(elements(rest)) == 2
    assert request["parameters"] == {"priority": 1, "binary_data_output": True}
    assert request["inputs"][-1]["parameters"] == {"content_type": "np"}


async def test_a_version_is_part_of_the_path(emulator: KServeEmulator) -> None:
    """Without one the server chooses."""
    async with aclosing(make(emulator.url, upscale=changed(version="1"))) as provider:
        await run(provider, task())
    assert emulator.requests("infer")[0].path == "/v2/models/upscaler/versions/1/infer"


async def test_a_gateway_gets_its_host_and_its_token(emulator: KServeEmulator) -> None:
    """A service behind a gateway is named by its virtual host."""
    async with aclosing(make(emulator.url, options={"host": "upscaler.models.example"}, secret="t0ken-4a")) as provider:
        await run(provider, task())
    (seen,) = emulator.requests("infer")
    assert (seen.headers["host"], seen.headers["authorization"]) == ("upscaler.models.example", "Bearer t0ken-4a")


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        (refusal(500, "Request timeout expired"), FailureKind.OVERLOADED),
        (refusal(400, "Exceeds maximum queue size"), FailureKind.OVERLOADED),
        (refusal(500, "CUDA out of memory"), FailureKind.OVERLOADED),
        (refusal(503, "not ready"), FailureKind.OVERLOADED),
        (refusal(400, "unexpected inference input 'sca' for model 'upscaler'"), FailureKind.UNSUPPORTED),
        (refusal(400, "unexpected inference output 'other' for model 'upscaler'"), FailureKind.UNSUPPORTED),
        (
            refusal(400, "inference input 'scale' data-type is 'INT64', but model expects 'INT32'"),
            FailureKind.UNSUPPORTED,
        ),
        (refusal(404, "Model with name upscaler does not exist."), FailureKind.UNSUPPORTED),
        (refusal(501, "Model versioning not supported yet."), FailureKind.UNSUPPORTED),
        (refusal(500, "canary"), FailureKind.PROVIDER_ERROR),
        (refusal(403, "timeout"), FailureKind.AUTH),
        (
            Answer(status=500, body=b'{"error":"canary"}', headers={"content-type": "text/plain"}),
            FailureKind.PROVIDER_ERROR,
        ),
    ],
)
async def test_an_error_has_its_kind(
    provider: KServe, emulator: KServeEmulator, refused: Answer, kind: FailureKind
) -> None:
    """The text tells what the status does not, and goes no further: servers quote what they were sent."""
    emulator.next("infer", Scripted(answer=refused))
    failure = await failure_of(provider, task())
    assert failure is not None
    assert failure.kind is kind
    assert "canary" not in f"{failure!r} {failure.detail}"


async def test_an_output_is_pointed_to_like_any_other(emulator: KServeEmulator) -> None:
    """`output` is a JSON pointer: a slash, then the tensor's name, in which a slash is written ~1."""
    emulator.next("infer", Scripted(answer=answer("", PNG)))
    provider = make(emulator.url, upscale=msgspec.structs.replace(UPSCALE, output="/decoder~1out~00"))
    failure = await failure_of(provider, task())
    await provider.aclose()
    assert failure is not None, "the emulator's tensor has another name"
    assert b'"outputs":[{"name":"decoder/out~0",' in emulator.requests("infer")[0].body


async def test_health_is_the_server_and_each_model(emulator: KServeEmulator) -> None:
    """A server that is up without the model is not healthy."""
    other = Model(model="other", input={"image": "$image"})
    async with aclosing(make(emulator.url)) as provider, aclosing(make(emulator.url, edit=other)) as without:
        await provider.healthy()
        assert [seen.path for seen in emulator.seen] == ["/v2/health/ready", "/v2/models/upscaler/ready"]
        emulator.is_ready = False
        for unhealthy in (provider, without):
            with pytest.raises(ProviderFailure) as caught:
                await unhealthy.healthy()
            assert caught.value.kind is FailureKind.OVERLOADED
            emulator.is_ready = True


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (changed(inputs={"picture": {}}), "picture is no input"),
        (changed(inputs={"image": {"datatype": "JPEG"}}), "datatype"),
        (changed(inputs={"image": {"shape": [0]}}), "shape"),
        (changed(inputs={"image": {"shape": [-1, -1]}}), "shape"),
        (msgspec.structs.replace(UPSCALE, model=""), "model is missing"),
    ],
)
async def test_a_wrong_description_is_refused(emulator: KServeEmulator, model: Model, reason: str) -> None:
    """warm() names the operation and what to mend."""
    async with aclosing(make(emulator.url, upscale=model)) as provider:
        with pytest.raises(ProviderFailure, match=f"upscale: .*{reason}"):
            await provider.warm()
    with pytest.raises(ProviderFailure, match="binray"):
        make(emulator.url, upscale=changed(binray=False))


@pytest.mark.parametrize("shape", [(2,), (2, -1), (1, 2)])
async def test_a_shape_that_does_not_fit_sends_nothing(emulator: KServeEmulator, shape: tuple[int, ...]) -> None:
    """A tensor that is not as long as its shape is never sent."""
    async with aclosing(make(emulator.url, upscale=changed(inputs={"image": {"shape": list(shape)}}))) as provider:
        failure = await failure_of(provider, task())
    assert failure is not None
    assert (failure.kind, failure.is_unsent) == (FailureKind.UNSUPPORTED, True)
    assert emulator.seen == []
    assert math.prod(shape) != 1

"""What the Open Inference Protocol adapter takes from an answer: pictures in every form, and no lie about them."""

import base64
import struct
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from providers.base import File, Task
from providers.failures import FailureKind
from providers.kserve import KServe
from tests.contract.orders import failure_of, order, run
from tests.emulators.base import Answer, Scripted, answer_json, running
from tests.emulators.kserve import KServeEmulator, answer, make

ATTEMPT = str(uuid.uuid4())
PNG = b"\x89PNG\r\n\x1a\n and so on"
ONE = struct.pack("<I", len(PNG)) + PNG


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


@pytest.mark.parametrize(
    "lie",
    [
        answer(ATTEMPT, PNG, size=len(ONE) + 1),
        answer(ATTEMPT, PNG, size=len(ONE) - 1),
        answer(ATTEMPT, PNG, size=-1),
        answer(ATTEMPT, PNG, size="all"),
        answer(ATTEMPT, PNG, size=2**63),
        answer(ATTEMPT, PNG, shape=[2]),
        answer(ATTEMPT, PNG, shape=[0]),
        answer(ATTEMPT, PNG, shape=[-1, -1]),
        answer(ATTEMPT, PNG, tail=b"\x01"),
        answer(ATTEMPT, tail=struct.pack("<I", 2**32 - 1) + PNG, shape=[1]),
        answer(ATTEMPT, PNG, datatype="FP32"),
        answer(ATTEMPT, PNG, datatype="UINT8", shape=[5]),
        answer(ATTEMPT, PNG, length=10**11),
        answer(ATTEMPT, PNG, length=-1),
        answer(ATTEMPT, b"", shape=[1]),
        answer(ATTEMPT, shape=[0]),
        answer(ATTEMPT, is_binary=False, data=["%%%"], shape=[1]),
        answer(ATTEMPT, is_binary=False, data=[7], shape=[1]),
        answer(ATTEMPT, is_binary=False, data=["https://elsewhere.example/1.png"], shape=[1]),
        answer(ATTEMPT, is_binary=False, data=["aGk=", "aGk="], shape=[1]),
        answer(ATTEMPT, is_binary=False, data=[256], datatype="UINT8", shape=[1]),
        answer(str(uuid.uuid4()), PNG),
        answer_json({"outputs": [{"name": "other", "datatype": "BYTES", "shape": [1], "data": ["aGk="]}]}),
    ],
)
async def test_a_lie_about_an_output_is_bad_output(provider: KServe, emulator: KServeEmulator, lie: Answer) -> None:
    """Sizes, shapes and ids are claims; none is followed beyond the answer that came."""
    emulator.next("infer", Scripted(answer=lie))
    failure = await failure_of(provider, task())
    assert failure is not None
    assert failure.kind is FailureKind.BAD_OUTPUT


@pytest.mark.parametrize(
    "unreadable",
    [
        answer(ATTEMPT, PNG, length=5),
        Answer(body=b"[]"),
        Answer(body=b'{"outputs": [{"name": "picture", "data": ["\x89PNG"]}]}'),
    ],
)
async def test_an_unreadable_answer_is_uncertain(
    provider: KServe, emulator: KServeEmulator, unreadable: Answer
) -> None:
    """Triton writes a BYTES output that is no text into JSON as it is: that is no JSON, and no picture."""
    emulator.next("infer", Scripted(answer=unreadable))
    failure = await failure_of(provider, task())
    assert failure is not None
    assert failure.kind is FailureKind.UNCERTAIN


@pytest.mark.parametrize(
    ("given", "outputs"),
    [
        (answer("", PNG, PNG + b"2"), (PNG, PNG + b"2")),
        (answer("", PNG, PNG, is_binary=False, shape=[1, 2], data=[[base64.b64encode(PNG).decode()] * 2]), (PNG, PNG)),
        (answer("", is_binary=False, shape=[1], data=["data:image/png;base64,aGk="]), (b"hi",)),
        (answer("", is_binary=False, datatype="UINT8", shape=[2], data=[104, 105]), (b"hi",)),
        (answer("", tail=PNG, datatype="UINT8", shape=[1, len(PNG)]), (PNG,)),
    ],
)
async def test_pictures_are_found_in_every_form(
    provider: KServe, emulator: KServeEmulator, given: Answer, outputs: tuple[bytes, ...]
) -> None:
    """Elements, nested lists, data URIs, rows of bytes: whatever a model was made to answer."""
    emulator.next("infer", Scripted(answer=given))
    snapshot = await run(provider, task())
    assert tuple(output.data for output in snapshot.outputs) == outputs

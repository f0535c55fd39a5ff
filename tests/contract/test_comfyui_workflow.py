"""How the ComfyUI adapter fills an exported workflow, and what it says of one that it cannot fill."""

import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from providers.base import Model, Part, Purge, Setup
from providers.comfyui import ComfyUI
from providers.failures import FailureKind, ProviderFailure
from tests.contract.orders import failure_of, picture, run, task
from tests.emulators.base import Scripted, running
from tests.emulators.comfyui import CASE, WORKFLOW, ComfyEmulator, make
from tests.emulators.comfyui_records import PROMPT, refusal
from tests.reporters import Heard

EXPORTED: dict[str, Any] = json.loads(WORKFLOW.read_text())
WORDS: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "color": 7}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ComfyUI"}},
}


@pytest.fixture
def emulator() -> Iterator[ComfyEmulator]:
    """Run a server."""
    made = ComfyEmulator()
    with running(made):
        yield made


@pytest.fixture
async def provider(emulator: ComfyEmulator) -> AsyncIterator[ComfyUI]:
    """Lend the adapter."""
    made = make(emulator.url)
    await made.warm()
    yield made
    await made.aclose()


def workflow(folder: Path, graph: dict[str, Any]) -> str:
    """Write an export."""
    file = folder / "workflow.json"
    file.write_text(json.dumps(graph))
    return str(file)


def words(url: str, folder: Path, *seeds: str) -> ComfyUI:
    """Make an adapter whose workflow takes no picture."""
    options = {"workflow_file": workflow(folder, WORDS), "seeds": list(seeds)}
    return ComfyUI(Setup(base_url=url, models={"upscale": Model(input={"1.width": "$scale"}, options=options)}))


async def test_an_order_is_the_export_with_its_places_filled(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """Links and constants stay; picture, number and words stand where `input` says; the attempt marks only the ends."""
    wanted = task(CASE)
    snapshot = await run(provider, wanted)
    (seen,) = emulator.requests("order")
    graph = {
        node: {"class_type": made["class_type"], "inputs": dict(made["inputs"])} for node, made in EXPORTED.items()
    }
    graph["1"]["inputs"]["image"] = f"{wanted.attempt}-1.jpg [temp]"
    graph["2"]["inputs"]["scale_by"] = 2
    graph["3"]["inputs"]["attempt"] = graph["4"]["inputs"]["attempt"] = wanted.attempt
    graph["4"]["inputs"]["value"] = PROMPT
    assert seen.json() == {"prompt": graph, "prompt_id": wanted.attempt}
    assert Image.open(io.BytesIO(snapshot.outputs[0].data or b"")).size == (128, 96)
    assert snapshot.outputs[0].media_type == "image/png"
    assert snapshot.model_s == 1.25


async def test_what_has_no_value_keeps_the_export(provider: ComfyUI, emulator: ComfyEmulator) -> None:
    """A parameter that is not given takes its default, and without one the exported value stays."""
    await run(provider, task(CASE, parameters={}))
    graph = emulator.requests("order")[0].json()["prompt"]
    assert graph["2"]["inputs"]["scale_by"] == 2.0
    assert graph["4"]["inputs"]["value"] == ""


async def test_every_attempt_draws_its_own_seed(emulator: ComfyEmulator, tmp_path: Path) -> None:
    """Two attempts differ in their seeds; the same attempt has the same one, whoever sends it."""
    made = [words(emulator.url, tmp_path, "1.color") for _ in range(2)]
    wanted = task(CASE, ())
    async with aclosing(made[0]) as one, aclosing(made[1]) as other:
        await run(one, wanted)
        emulator.restart()
        await run(other, wanted)
        await run(one, task(CASE, ()))
    first, again, second = (seen.json()["prompt"]["1"]["inputs"]["color"] for seen in emulator.requests("order"))
    assert first == again != second
    assert 0 <= second < 1 << 53


@pytest.mark.parametrize(
    ("node", "name", "kind", "detail"),
    [
        ("2", "scale_by", FailureKind.INVALID_INPUT, "input_2.scale_by"),
        ("2", "upscale_method", FailureKind.UNSUPPORTED, "workflow"),
        ("9", "ckpt_name", FailureKind.UNSUPPORTED, "workflow"),
    ],
)
async def test_only_what_tasks_fill_is_invalid_input(
    provider: ComfyUI, emulator: ComfyEmulator, node: str, name: str, kind: FailureKind, detail: str
) -> None:
    """A model or a node that this server lacks is its own fault, and another provider may do the task."""
    emulator.next("order", Scripted(answer=refusal(node, name, "value_not_in_list")))
    failure = await failure_of(provider, task(CASE))
    assert failure is not None
    assert (failure.kind, failure.detail) == (kind, detail)


@pytest.mark.parametrize(
    ("content", "places", "reason"),
    [
        (None, {}, "workflow_file: workflow.json cannot be read: No such file"),
        ("{}", {}, "workflow_file: workflow.json is empty"),
        ('{"nodes": [], "links": []}', {}, r"is no workflow in API format; export it with Workflow > Export \(API\)"),
        ("\xff", {}, "is no workflow in API format"),
        (json.dumps(WORDS), {"3.width": "$scale"}, "3.width names no node of the workflow"),
        (json.dumps(WORDS), {"1.hight": "$scale"}, r"node 1 \(EmptyImage\) has no input hight"),
        (json.dumps(WORDS), {"1.width": "$scale:wide"}, "has to be JSON"),
    ],
)
async def test_a_workflow_that_cannot_be_filled_is_named(
    tmp_path: Path, content: str | None, places: dict[str, Any], reason: str
) -> None:
    """What is wrong with an export or its places is said at the start, with the operation."""
    file = tmp_path / "workflow.json"
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    model = Model(input=places, options={"workflow_file": str(file)})
    async with aclosing(ComfyUI(Setup(base_url="http://127.0.0.1:9", models={"edit": model}))) as provider:
        with pytest.raises(ProviderFailure, match=f"edit: .*{reason}"):
            await provider.warm()
        with pytest.raises(ProviderFailure):
            await provider.submit(task(CASE, (picture(),), operation="edit"), Heard())


@pytest.mark.parametrize("options", [{}, {"workflow": "a.json"}, {"workflow_file": "a.json", "seed": 1}])
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    """A missing or misspelled option ends the start."""
    with pytest.raises(msgspec.ValidationError):
        ComfyUI(Setup(base_url="http://127.0.0.1:9", models={"edit": Model(options=options)}))


async def test_an_order_of_words_leaves_an_empty_file_as_a_sign(emulator: ComfyEmulator, tmp_path: Path) -> None:
    """Without a picture an empty file tells whether the server was restarted since, so that its history is whole."""
    async with aclosing(words(emulator.url, tmp_path)) as provider:
        for is_restarted in (False, True):
            heard = Heard()
            await run(provider, task(CASE, ()), heard)
            assert [name for _, _, name in emulator.files if name in heard.handle.uploads] == list(heard.handle.uploads)
            if is_restarted:
                emulator.restart()
            deleted = frozenset({Part.UPLOAD, Part.RECORD} if is_restarted else Part)
            assert await provider.purge(heard.handle) == Purge(deleted=deleted)
            assert set(emulator.files.values()) <= {b""}

"""The deployment that the bench measures against: it does real work, goes without what it says, and stays apart."""

import json
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest
import pytest_asyncio

from bench.bare.parts import BARE, WHOLE, Part
from bench.bare.pictures import Unfenced
from bench.guarantee import cost
from bench.measured import write_measured
from bench.models import QUERY, photo_of
from bench.report import Machine
from bench.scale import QUICK
from bench.stack import Stack, open_stack
from tests.integration.test_videos import cleaned
from tests.videos_corpus import marked_mp4, marked_webm
from workers.images.orders import ImageLimits

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = Path(__file__).parents[2] / ".lethe" / "data"
SIDE_PX = 64
BUDGETED = {"cost of the whole guarantee, no-op jobs": 25, "cost of the whole guarantee, real upscales": 5}
FACTS = {"date": "2031-01-01 10:00 UTC", "command": "`python -m bench --merge --only guarantee`", "python": "3.11.0"}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a client got, and what lay where while it could."""

    output: bytes
    part: bytes
    blobs: list[bytes]
    rows: dict[str, int]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers_of_the_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path_factory.mktemp("bare") / "stack", data_directory=DATA) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def stack(servers_of_the_bench: Stack) -> AsyncIterator[Stack]:
    """Postgres, Redis and a keyholder, with nothing in them of the test before."""
    yield servers_of_the_bench
    await servers_of_the_bench.forget()


@pytest.fixture
def photo(stack: Stack) -> bytes:
    return Path(photo_of(stack, SIDE_PX, SIDE_PX)).read_bytes()


async def upscaled(stack: Stack, photo: bytes, without: Collection[Part]) -> Seen:
    """Have one picture upscaled, the way a client does it."""
    (token,) = await stack.tokens(1)
    headers = {"Authorization": f"Bearer {token}"}
    base_url = f"http://127.0.0.1:{stack.port}"
    async with (
        stack.worker("gpu", frozenset(without)),
        stack.broker(frozenset(without)),
        httpx.AsyncClient(base_url=base_url, headers=headers, timeout=60) as http,
    ):
        path = f"/v1/jobs/{uuid4()}"
        taken = await http.put(f"{path}?{QUERY}", content=photo, headers={"Content-Type": "image/jpeg"})
        assert taken.status_code == 202, taken.text
        ended = await http.get(path, headers={"Prefer": "wait=25"})
        assert ended.json()["status"] == "succeeded", ended.text
        output = await http.get(f"{path}/outputs/0")
        part = await http.get(f"{path}/outputs/0", headers={"Range": "bytes=100-199"})
        assert (output.status_code, part.status_code) == (200, 206)
        return Seen(output=output.content, part=part.content, blobs=blobs_of(stack), rows=await rows_of(stack))


def blobs_of(stack: Stack) -> list[bytes]:
    return [blob.read_bytes() for blob in Path(stack.settings.blobs_url.removeprefix("file://")).iterdir()]


async def rows_of(stack: Stack) -> dict[str, int]:
    counted = {table: await stack.database.row(f"SELECT count(*) FROM {table}") for table in ("custody", "receipts")}
    return {table: int(row["count"]) for table, row in counted.items() if row is not None}


async def test_a_bare_deployment_does_the_same_work_without_the_guarantee(stack: Stack, photo: bytes) -> None:
    """Same API, same picture; the upload lies in the clear and stays, and nothing is known of it or said."""
    whole = await upscaled(stack, photo, WHOLE)
    await stack.forget()
    bare = await upscaled(stack, photo, BARE)

    assert bare.output == whole.output
    assert bare.part == whole.part == whole.output[100:200]
    assert sorted(bare.blobs) == sorted([photo, bare.output])
    assert not any(photo in blob or whole.output in blob for blob in whole.blobs)
    assert bare.rows == {"custody": 0, "receipts": 0}
    assert whole.rows["custody"] > 0
    assert whole.rows["receipts"] == 1


@pytest.mark.parametrize("part", [Part.KEYHOLDER, Part.CUSTODY])
async def test_a_part_can_be_left_out_alone(stack: Stack, photo: bytes, part: Part) -> None:
    """What the parts share does not break where one of them is not there: encryption stays encryption."""
    seen = await upscaled(stack, photo, {part})

    assert seen.part == seen.output[100:200]
    assert not any(photo in blob or seen.output in blob for blob in seen.blobs)


@pytest.mark.parametrize("data", [marked_mp4(), marked_webm()], ids=["mp4", "webm"])
async def test_a_video_is_cleaned_as_well(data: bytes) -> None:
    """By the same code, in a thread: no other process is there."""
    here = await Unfenced.start(ImageLimits())
    _, content = await cleaned(here, data)
    assert here.pid is None
    assert b"LETHE-MARKER" in data
    assert b"LETHE-MARKER" not in content


async def test_what_it_costs_is_measured_and_written(stack: Stack, tmp_path: Path) -> None:
    """Whole beside bare in one run, each against its budget; the same figures stand in a file for other pages."""
    scale = msgspec.structs.replace(QUICK, pair_s=1.0, upscaled_px=SIDE_PX)
    chapter = await cost(stack, scale)
    write_measured(tmp_path / "measured" / "cost.json", Machine(facts=FACTS), chapter)

    figures = {figure.name: figure for figure in chapter.figures}
    assert {name: figure.budget.limit for name, figure in figures.items() if figure.budget} == BUDGETED
    for name in ("no-op jobs", "real upscales"):
        whole, bare = figures[f"{name}, whole"].value, figures[f"{name}, bare"].value
        assert figures[f"cost of the whole guarantee, {name}"].value == pytest.approx(100 * (1 - whole / bare))
    written = json.loads((tmp_path / "measured" / "cost.json").read_text())
    assert written["when"] == FACTS["date"]
    assert written["commands"] == ["python -m bench --merge --only guarantee"]
    assert written["machine"] == {"python": "3.11.0"}
    assert [figure["name"] for figure in written["figures"]] == [figure.name for figure in chapter.figures]
    assert all("is_met" in figure for figure in written["figures"] if figure["name"] in BUDGETED)

"""The deployment that the bench measures against: it does real work, goes without what it says, and stays apart."""

import json
from collections.abc import Collection
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest

from bench.__main__ import measure
from bench.bare.parts import BARE, WHOLE, Part
from bench.guarantee import cost
from bench.measured import write_measured
from bench.models import QUERY, photo_of
from bench.report import Machine
from bench.scale import QUICK
from bench.stack import Stack, open_stack

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


async def test_a_bare_deployment_does_the_same_work_without_the_guarantee(tmp_path: Path) -> None:
    """Same API, same picture; the upload lies in the clear and stays, and nothing is known of it or said."""
    async with open_stack(tmp_path / "stack", data_directory=DATA) as stack:
        photo = Path(photo_of(stack, SIDE_PX, SIDE_PX)).read_bytes()
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
async def test_a_part_can_be_left_out_alone(tmp_path: Path, part: Part) -> None:
    """What the parts share does not break where one of them is not there: encryption stays encryption."""
    async with open_stack(tmp_path / "stack", data_directory=DATA) as stack:
        photo = Path(photo_of(stack, SIDE_PX, SIDE_PX)).read_bytes()
        seen = await upscaled(stack, photo, {part})

    assert seen.part == seen.output[100:200]
    assert not any(photo in blob or seen.output in blob for blob in seen.blobs)


async def test_what_it_costs_is_measured_and_written(tmp_path: Path) -> None:
    """Whole beside bare in one run, each against its budget; the same figures stand in a file for other pages."""
    scale = msgspec.structs.replace(QUICK, pair_s=1.0, upscaled_px=SIDE_PX)
    (chapter,) = await measure({"guarantee": cost}, scale, DATA)
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

"""In-house models through the broker, beside the bare model loop; and one large picture."""

import asyncio
import io
import json
import sys
from contextlib import suppress
from pathlib import Path

from PIL import Image

from bench.load import Plan, Tally, run_load
from bench.machine import peak_rss_bytes
from bench.model import picture
from bench.report import Chapter, Figure, at_least, at_most
from bench.scale import Scale
from bench.stack import HERE, Running, Stack, children_of

IN_FLIGHT = 4
MEGABYTE = 1_000_000
GIB_MB = 1_073.741_824
LOOK_AGAIN_S = 0.02
QUERY = "operation=upscale&scale=2&quality=fast"


async def throughput(stack: Stack, scale: Scale) -> Chapter:
    """Upscale the same pictures by the bare loop and through the broker, in turns."""
    side_px = scale.pictured_px
    photo = photo_of(stack, side_px, side_px)
    tokens = await stack.tokens(IN_FLIGHT)
    plan = Plan(
        port=stack.port,
        tokens=tokens,
        query=QUERY,
        phones=IN_FLIGHT,
        count=scale.pictures,
        body_file=photo,
        waits=True,
    )
    bare: list[float] = []
    own: list[float] = []
    through: list[float] = []
    async with stack.worker("gpu"), stack.broker():
        await run_load(plan)
        for _ in range(scale.rounds):
            bare.append(await _loop_per_s(stack, "bare", scale))
            through.append(_whole(await run_load(plan)).per_s)
            own.append(await _loop_per_s(stack, "provider", scale))
    what = f"{scale.pictures} pictures of {side_px}×{side_px} a round, fast, ×2"
    return Chapter(
        title="In-house model throughput",
        figures=(
            Figure(
                name="model throughput through the broker, of the bare loop",
                unit="%",
                rounds=_shares(through, bare),
                budget=at_least(95),
                method=f"two of the figures below, taken in turns; {what}.",
            ),
            Figure(
                name="the same, of our own model loop without a broker",
                unit="%",
                rounds=_shares(through, own),
                method="the stricter comparison: our loop is faster than the bare one.",
            ),
            Figure(
                name="through the broker",
                unit="pictures/s",
                rounds=tuple(through),
                method=f"first PUT to last final state, {IN_FLIGHT} jobs in flight, decoding and encoding included.",
            ),
            Figure(
                name="our own model loop",
                unit="pictures/s",
                rounds=tuple(own),
                method="`bench.model provider`: what a worker runs, pixels in, pixels out.",
            ),
            Figure(
                name="bare model loop",
                unit="pictures/s",
                rounds=tuple(bare),
                method="`bench.model bare`: the network on default options, no decoding or encoding.",
            ),
        ),
    )


async def large(stack: Stack, scale: Scale) -> Chapter:
    """Upscale one large picture and watch the worker's processes."""
    width = round((scale.large_megapixels * 1e6 * 4 / 3) ** 0.5)
    photo = photo_of(stack, width, width * 3 // 4)
    plan = Plan(port=stack.port, tokens=await stack.tokens(1), query=QUERY, count=1, body_file=photo, waits=True)
    async with stack.worker("gpu") as worker, stack.broker():
        watching = asyncio.create_task(_watch_children(worker))
        tally = _whole(await run_load(plan))
        watching.cancel()
        child_mb = await watching / MEGABYTE
        worker_mb = peak_rss_bytes(worker.pid) / MEGABYTE
    what = f"one JPEG of {width}×{width * 3 // 4}, fast, ×2"
    return Chapter(
        title=f"One picture of {scale.large_megapixels} megapixels",
        figures=(
            Figure(
                name="12 MP ×2, whole job", unit="s", rounds=(tally.took_s,), method=f"{what}, PUT to final; one round."
            ),
            Figure(
                name="12 MP ×2, peak RSS of the worker process",
                unit="MB",
                rounds=(worker_mb,),
                budget=at_most(GIB_MB),
                method="VmHWM; shared memory that it has mapped counts.",
            ),
            Figure(
                name="12 MP ×2, peak RSS of its largest decoding or encoding child",
                unit="MB",
                rounds=(child_mb,),
                budget=at_most(GIB_MB),
                method=f"VmHWM of every process below the worker, read every {LOOK_AGAIN_S * 1000:.0f} ms.",
            ),
        ),
    )


def _shares(ours: list[float], theirs: list[float]) -> tuple[float, ...]:
    return tuple(100 * one / other for one, other in zip(ours, theirs, strict=True))


async def _loop_per_s(stack: Stack, loop: str, scale: Scale) -> float:
    side_px = str(scale.pictured_px)
    arguments = ["--models", str(stack.settings.models_dir), "--width", side_px, "--height", side_px]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.model", loop, *arguments, "--rounds", str(scale.pictures)),
        cwd=HERE.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    printed, _ = await process.communicate()
    return 1 / float(json.loads(printed)["p50_s"])


async def _watch_children(worker: Running) -> int:
    most_bytes = 0
    with suppress(asyncio.CancelledError):
        while True:
            for pid in _below(worker.pid):
                with suppress(OSError):
                    most_bytes = max(most_bytes, peak_rss_bytes(pid))
            await asyncio.sleep(LOOK_AGAIN_S)
    return most_bytes


def _below(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for child in children_of(pid):
            found += [child, *_below(child)]
    return found


def photo_of(stack: Stack, width: int, height: int) -> str:
    """Write a JPEG of this size into the stack's folder, and return its path."""
    sheet = io.BytesIO()
    Image.fromarray(picture(width, height)).save(sheet, "JPEG", quality=90)
    path = Path(stack.settings.receipt_key_file).with_name(f"photo-{width}.jpg")
    path.write_bytes(sheet.getvalue())
    return str(path)


def _whole(tally: Tally) -> Tally:
    if tally.failed or not tally.done:
        raise RuntimeError(f"{tally.failed} of {tally.done + tally.failed} jobs went wrong: there is no figure")
    return tally

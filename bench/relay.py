"""The relay: what a job at a provider takes beyond the provider itself, and how soon the next provider is asked."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from bench.emulated import SIDE_PX, Moment, photo
from bench.load import Plan, Tally, run_load
from bench.outside import NOOP, Emulated, emulated, relaying, route
from bench.report import Budget, Chapter, Figure, at_most, percentile
from bench.scale import Scale
from bench.stack import Stack
from broker.sniff import ImageKind
from providers.base import Upload
from workers.images.orders import ImageLimits
from workers.images.zygote import Zygote
from workers.plaintext import Plaintext

ANSWER_S = 0.05
USERS = 20
CLEANED = 40
WORDS = '{"operation": "generate", "parameters": {"prompt": "a kingfisher over water"}}'
PROMPT = '{"prompt": "a kingfisher over water"}'


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of one round, ms."""

    noop: float
    generate: float
    edit: float
    upscale: float
    answered: float
    """Of the emulated API's own answers."""
    cleaned: float
    """Of one picture that is decoded and encoded by itself, each in a child of its own."""


async def overhead(stack: Stack, scale: Scale) -> Chapter:
    """Take no-op jobs, jobs at a provider that answers at once, and jobs at one that calls back, in turns."""
    options = ("--answer-s", str(ANSWER_S))
    async with emulated(stack, "images", *options) as images, emulated(stack, "predictions", *options) as predictions:
        tables = images.table("images", stack.folder) + predictions.table("predictions", stack.folder)
        routes = [route(name, "[{ images = 1 }]") for name in ("generate", "edit")]
        changed = relaying(stack, NOOP + tables + "".join(routes) + route("upscale", "[{ predictions = 1 }]"))
        changed["public_url"] = f"http://127.0.0.1:{stack.port}"
        plans = await _plans(stack, scale)
        async with stack.worker("noop", **changed), stack.worker("relay", **changed), stack.broker(**changed):
            for plan in plans.values():
                await _whole(plan)
            rounds = [await _round(plans, images) for _ in range(scale.rounds)]
    return _overhead_chapter(rounds, jobs=scale.jobs)


async def _round(plans: Mapping[str, Plan], images: Emulated) -> Round:
    await images.moments()
    medians = {name: percentile((await _whole(plan)).latencies_ms, 50) for name, plan in plans.items()}
    moments = await images.moments("s")  # images/generations, images/edits
    answered = percentile([(moment.went_ns - moment.came_ns) / 1e6 for moment in moments], 50)
    return Round(**medians, answered=answered, cleaned=await _cleaned_ms())


async def _cleaned_ms() -> float:
    zygote = await Zygote.start(ImageLimits())
    try:
        return percentile([await _clean(zygote, photo(SIDE_PX)) for _ in range(CLEANED)], 50)
    finally:
        await zygote.aclose()


async def _clean(zygote: Zygote, data: bytes) -> float:
    with Plaintext() as plaintext:
        fd = plaintext.blank(len(data))
        os.pwrite(fd, data, 0)
        began_s = time.perf_counter()
        pixels = await zygote.decode(Upload(fd=fd, size_bytes=len(data)))
        plaintext.keep(pixels.fd)
        plaintext.keep((await zygote.encode(pixels, kind=ImageKind.JPEG)).fd)
        return (time.perf_counter() - began_s) * 1000


async def failover(stack: Stack, scale: Scale) -> Chapter:
    """Let every job be refused by one provider and go on to the next; read both providers' clocks."""
    async with emulated(stack, "images", "--refuses") as first, emulated(stack, "images") as second:
        tables = first.table("first", stack.folder) + second.table("second", stack.folder)
        routes = [route(name, "[{ first = 1 }, { second = 1 }]") for name in ("generate", "edit")]
        changed = relaying(stack, tables + "".join(routes))
        plans = await _plans(stack, scale)
        gaps: dict[str, list[list[float]]] = {"generate": [], "edit": []}
        async with stack.worker("relay", **changed), stack.broker(**changed):
            for name in gaps:
                await _whole(plans[name])
            for _ in range(scale.rounds):
                for name, rounds in gaps.items():
                    await asyncio.gather(first.moments(), second.moments())
                    await _whole(msgspec.structs.replace(plans[name], count=scale.failovers))
                    rounds.append(gaps_ms(await first.moments("s"), await second.moments("s")))
    return _failover_chapter(gaps, count=scale.failovers)


def gaps_ms(refused: Sequence[Moment], asked: Sequence[Moment]) -> list[float]:
    """Return the milliseconds from each refusal to the request that followed it; jobs came one at a time."""
    pairs = zip(refused, asked, strict=True)
    return [(after.came_ns - before.went_ns) / 1e6 for before, after in pairs]


async def _plans(stack: Stack, scale: Scale) -> dict[str, Plan]:
    body = photo_file(stack.folder)
    plain = Plan(port=stack.port, tokens=await stack.tokens(USERS), count=scale.jobs, body_file=body, waits=True)
    return {
        "noop": plain,
        "generate": Plan(port=plain.port, tokens=plain.tokens, count=scale.jobs, posts=WORDS, waits=True),
        "edit": msgspec.structs.replace(plain, query="operation=edit", parameters=PROMPT),
        "upscale": msgspec.structs.replace(plain, query="operation=upscale&scale=2&quality=fast"),
    }


def photo_file(folder: Path, side_px: int = SIDE_PX) -> str:
    """Write the photo that is sent."""
    file = folder / f"photo-{side_px}.jpg"
    file.write_bytes(photo(side_px))
    return str(file)


async def _whole(plan: Plan) -> Tally:
    tally = await run_load(plan)
    if tally.failed:
        raise RuntimeError(f"{tally.failed} of {tally.done + tally.failed} jobs went wrong: there is no figure")
    return tally


def _overhead_chapter(rounds: list[Round], *, jobs: int) -> Chapter:
    def figure(name: str, take: Callable[[Round], float], method: str, budget: Budget | None = None) -> Figure:
        return Figure(name=name, unit="ms", rounds=tuple(map(take, rounds)), method=method, budget=budget)

    taken = "whole job less the API's own time less a whole no-op job of the same round, p50s"
    picture = f"a JPEG of {SIDE_PX}×{SIDE_PX}, about 100 KB"
    return Chapter(
        title="What the relay adds to a provider",
        figures=(
            figure(
                "relay overhead, `generate`, p50",
                lambda r: r.generate - r.answered - r.noop,
                f"{taken}; POST, long-poll until final; {picture}, comes back in base64 after "
                f"{ANSWER_S * 1000:.0f} ms, is decoded, encoded, encrypted; {jobs} jobs a round, one at a time.",
                at_most(15),
            ),
            figure(
                "the same without cleaning the output, p50",
                lambda r: r.generate - r.answered - r.noop - r.cleaned,
                "less the time below.",
            ),
            figure(
                "relay overhead, `edit`, p50",
                lambda r: r.edit - r.answered - r.noop,
                "as above, with PUT of such a picture, which is decoded and encoded as well before it leaves.",
            ),
            figure(
                "the same without cleaning both pictures, p50",
                lambda r: r.edit - r.answered - r.noop - 2 * r.cleaned,
                "less twice the time below.",
            ),
            figure(
                "relay overhead, asynchronous provider that calls back, p50",
                lambda r: r.upscale - ANSWER_S * 1000 - r.noop,
                f"`upscale` at an emulated Replicate: order, {ANSWER_S * 1000:.0f} ms, webhook to the broker, hint "
                "over Redis, one question, GET of the output; both pictures cleaned.",
            ),
            figure("one picture cleaned by itself, p50", lambda r: r.cleaned, "decoded and encoded in two sandboxes."),
            figure("whole no-op job beside it, p50", lambda r: r.noop, "PUT of such a picture, long-poll until final."),
            figure("the emulated API's own time, p50", lambda r: r.answered, "head of the request in, answer gone."),
        ),
    )


def _failover_chapter(gaps: Mapping[str, list[list[float]]], *, count: int) -> Chapter:
    methods = {
        "generate": "the first provider answers 404 `model_not_found`, its answer has gone; the head of the request "
        f"to the next one comes in: two clocks of one machine. {count} jobs a round, one at a time, no back-off.",
        "edit": "as above, with a picture of about 100 KB: nothing is kept in the clear between two orders, so that it "
        "is opened, decoded and encoded once more.",
    }
    return Chapter(
        title="Failover",
        figures=tuple(
            Figure(
                name=f"refused → next provider asked, `{name}`, p{percent}",
                unit="ms",
                rounds=tuple(percentile(times_ms, percent) for times_ms in rounds),
                budget=at_most(50),
                method=methods[name] if percent == 50 else "as above.",
            )
            for name, rounds in gaps.items()
            for percent in (50, 99)
        ),
    )

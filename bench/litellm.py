"""LiteLLM's proxy beside Lethe: the same pictures from the same emulated Images API, in one run, in turns."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from bench.emulated import SECRETS, SIDE_PX
from bench.load import Plan, Tally, run_load
from bench.machine import tree_pss_bytes
from bench.outside import Emulated, emulated, relaying, route
from bench.processor import cpu_s
from bench.relay import WORDS
from bench.report import Chapter, Figure, percentile
from bench.scale import Scale
from bench.stack import Running, Stack, answers, free_port

ANSWER_S = 0.05
AT_ONCE = (1, 8, 32)
MODEL = "gpt-image-2"
KEY = "sk-bench"
ORDER = f'{{"model": "{MODEL}", "prompt": "a kingfisher over water", "output_format": "jpeg"}}'
USERS = 40
MEGABYTE = 1_000_000
DIRECT, LITELLM, LETHE = "direct", "LiteLLM", "Lethe"
CONFIG = """
model_list:
  - model_name: {model}
    litellm_params: {{ model: openai/{model}, api_base: "{url}/v1", api_key: {secret} }}
general_settings: {{ master_key: {key} }}
"""


NOTES = (
    "Lethe with one broker and one relay worker. Both share the cores with the emulated API and the load. "
    "`make bench-litellm` installs LiteLLM apart from everything else and measures again.",
    "Lethe is slower, where the aim was to be several times faster. "
    "The two do not do the same. LiteLLM hands the provider's answer through and keeps nothing. A job of Lethe is "
    "accepted for good before it runs, survives the death of any process, and its picture is not handed through: it is "
    "decoded and rebuilt from pixels in two sandboxed processes of its own, encrypted under its own key, and given out "
    "only after every other copy is destroyed and a receipt is signed. That costs three requests instead of one, two "
    "forks and more than a dozen commits. For one job after the other about half of what is added is the cleaning of "
    "the picture, the rest are commits and round trips; for many at once the two cores "
    "are short (where their time goes then was not profiled).",
)


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one of those that are compared gave, round by round, at one concurrency."""

    name: str
    at_once: int
    tallies: list[Tally]
    cpu_ms: list[float]
    """Of its processes, for one picture."""

    def p(self, percent: int) -> list[float]:
        """Return a percentile of each round, ms."""
        return [percentile(tally.latencies_ms, percent) for tally in self.tallies]


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out beside the rounds; memory is that of whole process trees under load, MB."""

    version: str
    most_per_s: float
    litellm_mb: float
    broker_mb: float
    worker_mb: float


async def beside(stack: Stack, scale: Scale, *, interpreter: Path) -> Chapter:
    """Ask the emulated API itself, through LiteLLM, and through Lethe: at each concurrency in turns."""
    async with emulated(stack, "images", "--answer-s", str(ANSWER_S)) as there:
        changed = relaying(stack, there.table("images", stack.folder) + route("generate", "[{ images = 1 }]"))
        async with (
            _proxy(stack, there, interpreter) as proxy,
            stack.worker("relay", **changed) as worker,
            stack.broker(**changed) as broker,
        ):
            plans = await _plans(stack, there, proxy_port=proxy.port)
            pids = {DIRECT: [there.pid], LITELLM: [proxy.pid], LETHE: [broker.pid, worker.pid]}
            sides = {(name, n): Side(name=name, at_once=n, tallies=[], cpu_ms=[]) for n in AT_ONCE for name in plans}
            for plan in plans.values():
                await run_load(msgspec.structs.replace(plan, phones=8, within_s=scale.beside_s / 2))
            for _ in range(scale.rounds):
                for side in sides.values():
                    await _round(side, plans[side.name], scale, pids[side.name])
                    await stack.forget()
            around = Around(
                version=await _version(interpreter),
                most_per_s=await _most_per_s(stack, scale),
                litellm_mb=tree_pss_bytes(proxy.pid) / MEGABYTE,
                broker_mb=tree_pss_bytes(broker.pid) / MEGABYTE,
                worker_mb=tree_pss_bytes(worker.pid) / MEGABYTE,
            )
    return chapter(list(sides.values()), around)


async def _round(side: Side, plan: Plan, scale: Scale, pids: list[int]) -> None:
    before_s = sum(map(cpu_s, pids))
    tally = await run_load(msgspec.structs.replace(plan, phones=side.at_once, within_s=scale.beside_s))
    if tally.failed or tally.done < 2:
        raise RuntimeError(f"{tally.failed} of {tally.done + tally.failed} went wrong at {side.name}: no figure")
    side.tallies.append(tally)
    side.cpu_ms.append((sum(map(cpu_s, pids)) - before_s) * 1000 / tally.done)


async def _plans(stack: Stack, there: Emulated, *, proxy_port: int) -> dict[str, Plan]:
    direct = Plan(port=there.port, tokens=[SECRETS["images"]], orders=ORDER)
    job = Plan(port=stack.port, tokens=await stack.tokens(USERS), posts=WORDS, waits=True, fetches=True)
    return {
        DIRECT: direct,
        LITELLM: msgspec.structs.replace(direct, port=proxy_port, tokens=[KEY]),
        LETHE: job,
    }


async def _most_per_s(stack: Stack, scale: Scale) -> float:
    """Count how many answers the emulated API gives in a second when it does not wait: it must not be the limit."""
    async with emulated(stack, "images") as there:
        plan = Plan(port=there.port, tokens=[SECRETS["images"]], orders=ORDER, phones=AT_ONCE[-1])
        return (await run_load(msgspec.structs.replace(plan, within_s=scale.beside_s))).per_s


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """LiteLLM's proxy, one worker."""

    running: Running
    port: int

    @property
    def pid(self) -> int:
        return self.running.pid


@asynccontextmanager
async def _proxy(stack: Stack, there: Emulated, interpreter: Path) -> AsyncGenerator[Proxy]:
    config, port = stack.folder / "litellm.yaml", free_port()
    config.write_text(CONFIG.format(model=MODEL, url=there.url, secret=SECRETS["images"], key=KEY))
    command = [str(interpreter.with_name("litellm")), "--config", str(config), "--host", "127.0.0.1"]
    # Prices come with the package; asking for newer ones would only wait for a network.
    settings = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    async with stack.program("litellm", [*command, "--port", str(port), "--num_workers", "1"], **settings) as running:
        await running.until(lambda: answers(f"http://127.0.0.1:{port}/health/liveliness"))
        yield Proxy(running=running, port=port)


async def _version(interpreter: Path) -> str:
    command = "from importlib.metadata import version; print(version('litellm'))"
    process = await asyncio.create_subprocess_exec(str(interpreter), "-c", command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    return printed.decode().strip()


def added_ms(sides: list[Side], side: Side, percent: int) -> tuple[float, ...]:
    """Return what a side adds to the API's own time at the same concurrency, round by round."""
    direct = next(one for one in sides if one.name == DIRECT and one.at_once == side.at_once)
    return tuple(whole - own for whole, own in zip(side.p(percent), direct.p(50), strict=True))


def chapter(sides: list[Side], around: Around) -> Chapter:
    """Write it all down."""
    figures = [figure for side in sides if side.name != DIRECT for figure in _figures(sides, side)]
    return Chapter(
        title="Beside LiteLLM's proxy",
        figures=(*figures, *_ratios(sides), *_memory(around), *_direct(sides, around)),
        notes=(f"LiteLLM {around.version}, one worker, no database, a master key; {NOTES[0]}", *NOTES[1:]),
    )


def _ratios(sides: list[Side]) -> list[Figure]:
    named = {(side.name, side.at_once): side for side in sides}
    return [
        Figure(
            name=f"Lethe's whole jobs per LiteLLM answer, {n} at once",
            unit="×",
            rounds=tuple(
                ours.per_s / theirs.per_s
                for ours, theirs in zip(named[LETHE, n].tallies, named[LITELLM, n].tallies, strict=True)
            ),
            method="the two rates of the same round.",
        )
        for n in AT_ONCE
    ]


def _figures(sides: list[Side], side: Side) -> list[Figure]:
    what = "whole jobs" if side.name == LETHE else "answers"
    at = f"{side.name}, {side.at_once} at once"
    return [
        Figure(name=f"{at}: {what}", unit="/s", rounds=tuple(t.per_s for t in side.tallies), method=METHODS[side.name]),
        *(
            Figure(
                name=f"{at}: added, p{percent}",
                unit="ms",
                rounds=added_ms(sides, side, percent),
                method="beyond the p50 of the API itself at the same concurrency in the same round.",
            )
            for percent in (50, 99)
        ),
        Figure(
            name=f"{at}: processor time",
            unit="ms",
            rounds=tuple(side.cpu_ms),
            method="of its processes for each, those below them included.",
        ),
    ]


METHODS = {
    LITELLM: "POST /v1/images/generations, the picture comes in the answer.",
    LETHE: "POST /v1/jobs (`generate`), GET with `Prefer: wait=25` until final, GET of output 0.",
}


def _memory(around: Around) -> list[Figure]:
    method = "PSS of the process and all below it after the last round under load."
    return [
        Figure(name=f"memory of {name}", unit="MB", rounds=(value,), method=method)
        for name, value in (
            ("LiteLLM's proxy", around.litellm_mb),
            ("Lethe's broker", around.broker_mb),
            ("Lethe's relay worker", around.worker_mb),
        )
    ]


def _direct(sides: list[Side], around: Around) -> list[Figure]:
    direct = [side for side in sides if side.name == DIRECT]
    return [
        *(
            Figure(
                name=f"the API itself, {side.at_once} at once, p50",
                unit="ms",
                rounds=tuple(side.p(50)),
                method=f"it waits {ANSWER_S * 1000:.0f} ms, then answers with a JPEG of {SIDE_PX}×{SIDE_PX} in base64.",
            )
            for side in direct
        ),
        Figure(
            name="the API itself at its most",
            unit="/s",
            rounds=(around.most_per_s,),
            method=f"without a wait, {AT_ONCE[-1]} at once.",
        ),
    ]

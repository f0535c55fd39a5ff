"""What the guarantee costs in throughput: the product beside the same services wired without its parts."""

import statistics
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import msgspec

from bench.bare.parts import BARE, WHOLE, Part
from bench.jobs import PHONES, SLOTS, USERS
from bench.load import Plan, run_load
from bench.models import IN_FLIGHT, QUERY, photo_of
from bench.processor import costed, servers
from bench.report import Chapter, Figure, at_most
from bench.scale import Scale
from bench.stack import Stack, open_stack

NOTE: Final = (
    "Bare is a deployment of this bench's own (`python -m bench.bare`), not of the product, which has no setting, "
    "argument or variable for any of it: the same services, API, queue and engine, with stand-ins put in where they "
    "are wired. Blobs are stored as they come, keys are zeros that nobody is asked for, pictures are decoded and "
    "encoded in threads of the worker, a job has one row that is written when its upload is in, when it is claimed and "
    "when it ends, nothing is destroyed, no receipt is made, no guard stands by, freed memory keeps what it held. "
    "Leases, fences, rescue, limits and the fingerprint by which a repeated upload is known stay: a plain queue wants "
    "them too. A no-op job is neither decoded nor encoded, so that the sandbox costs it nothing. The parts do not add "
    "up to the whole: each is what the product gains when this part alone is left out."
)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of work, in which pool it is done, and what the guarantee may cost it, percent."""

    name: str
    unit: str
    pool: str
    slots: int | None
    budget: float
    pairs: int
    warm: Plan
    plan: Plan
    parts: tuple[Part, ...]
    what: str


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one round: finished jobs per second, and processor time of all processes per job."""

    per_s: float
    cpu_ms: float


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """Rounds of the product and of a deployment without something; those of the same number followed each other."""

    whole: list[Taken] = msgspec.field(default_factory=list[Taken])
    less: list[Taken] = msgspec.field(default_factory=list[Taken])

    @property
    def throughput_cost(self) -> tuple[float, ...]:
        """How much less is done with than without, percent; below zero when it is more."""
        return tuple(100 * (1 - with_it.per_s / without.per_s) for with_it, without in self._each())

    @property
    def processor_cost(self) -> tuple[float, ...]:
        """How much more processor time a job takes with than without, percent."""
        return tuple(100 * (with_it.cpu_ms / without.cpu_ms - 1) for with_it, without in self._each())

    def _each(self) -> Iterator[tuple[Taken, Taken]]:
        return zip(self.whole, self.less, strict=True)


class Deployment:
    """One broker and one worker on servers of their own, kept up while another is measured beside them."""

    def __init__(self, stack: Stack, load: Load, tokens: list[str], pids: Mapping[str, int]) -> None:
        self._stack = stack
        self._load = load
        self._here = {"port": stack.port, "tokens": tokens}
        self._pids = pids

    @classmethod
    @asynccontextmanager
    async def of(cls, stack: Stack, load: Load, without: Set[Part]) -> AsyncGenerator[Self]:
        """Start it, and have it do a little that is not counted."""
        async with stack.worker(load.pool, without, slots=load.slots) as worker, stack.broker(without) as broker:
            mine = {"broker": broker.top_pid, "worker": worker.top_pid, "keyholder": stack.keyholder.pid}
            deployment = cls(stack, load, await stack.tokens(USERS), {**mine, **servers(stack)})
            await run_load(msgspec.structs.replace(load.warm, **deployment._here))
            yield deployment

    async def take(self) -> Taken:
        """Work for one round."""
        tally, costs = await costed(msgspec.structs.replace(self._load.plan, **self._here), self._pids)
        # What a bare one leaves lying would reach the disk in the middle of a later round. Rows stay: to empty tables
        # takes locks that those who watch them hold as well.
        self._stack.drop_blobs()
        return Taken(per_s=tally.per_s, cpu_ms=sum(costs.values()))


async def cost(stack: Stack, scale: Scale) -> Chapter:
    """Take whole and bare in turns, then whole and whole without one part; compare round by round."""
    figures: list[Figure] = []
    for load in (_noop(scale), _upscale(stack, scale)):
        figures += figures_of(load, await _pairs(stack, load, BARE, load.pairs))
        for part in load.parts if scale.has_parts else ():
            figures.append(part_figure(load, part, await _pairs(stack, load, {part}, load.pairs // 2)))
    budgeted = [figure for figure in figures if figure.budget]
    others = [figure for figure in figures if not figure.budget]
    return Chapter(title="What the whole guarantee costs", figures=(*budgeted, *others), notes=(NOTE,))


def figures_of(load: Load, pairs: Pairs) -> list[Figure]:
    """Make the figures of one kind of work out of rounds of whole and bare."""
    return [
        Figure(
            name=f"cost of the whole guarantee, {load.name}",
            unit="%",
            rounds=pairs.throughput_cost,
            budget=at_most(load.budget),
            method=f"how much less is done in the same time than bare: 1 − whole / bare, round by round; {load.what}",
        ),
        Figure(
            name=f"the same by processor time, {load.name}",
            unit="%",
            rounds=pairs.processor_cost,
            method="how much more of it a job takes than bare, in broker, worker, guards, keyholder, Postgres, Redis.",
        ),
        _rate(load, "whole", pairs.whole),
        _rate(load, "bare", pairs.less),
    ]


def part_figure(load: Load, part: Part, pairs: Pairs) -> Figure:
    """Make the figure of one part out of rounds of whole and whole without it."""
    return Figure(
        name=f"of it {part}, {load.name}",
        unit="%",
        rounds=pairs.throughput_cost,
        method=f"1 − whole / whole without {part}, round by round; by processor time "
        f"{statistics.median(pairs.processor_cost):.1f} %.",
    )


def _rate(load: Load, name: str, taken: Sequence[Taken]) -> Figure:
    cpu_ms = statistics.median(one.cpu_ms for one in taken)
    return Figure(
        name=f"{load.name}, {name}",
        unit=load.unit,
        rounds=tuple(one.per_s for one in taken),
        method=f"in the rounds above; processor time of all processes per job {cpu_ms:.1f} ms.",
    )


async def _pairs(stack: Stack, load: Load, without: Set[Part], count: int) -> Pairs:
    pairs = Pairs()
    beside = stack.folder.with_name("beside")
    async with (
        open_stack(beside, data_directory=Path(stack.settings.data_dir)) as other,
        Deployment.of(stack, load, WHOLE) as whole,
        Deployment.of(other, load, without) as less,
    ):
        turns = [(whole, pairs.whole), (less, pairs.less)]
        for _ in range(count):
            for deployment, taken in turns:
                taken.append(await deployment.take())
            turns.reverse()  # a machine that slows down, or speeds up, favours nobody
    await stack.forget()
    return pairs


def _noop(scale: Scale) -> Load:
    plan = Plan(port=0, tokens=[], phones=PHONES, within_s=scale.pair_s, waits=True)
    return Load(
        name="no-op jobs",
        unit="jobs/s",
        pool="noop",
        slots=SLOTS,
        budget=25,
        pairs=scale.pairs,
        warm=plan,
        plan=plan,
        parts=(Part.ENCRYPTION, Part.KEYHOLDER, Part.CUSTODY, Part.FORGETTING),
        what=f"PUT of 100 KB and long-poll until final, {PHONES} at once, {scale.pair_s:.1f} s a round; both "
        "deployments are up on servers of their own, and take turns.",
    )


def _upscale(stack: Stack, scale: Scale) -> Load:
    side_px = scale.upscaled_px
    plan = Plan(
        port=0,
        tokens=[],
        query=QUERY,
        phones=IN_FLIGHT,
        count=scale.upscales,
        body_file=photo_of(stack, side_px, side_px),
        waits=True,
    )
    return Load(
        name="real upscales",
        unit="pictures/s",
        pool="gpu",
        slots=None,
        budget=5,
        pairs=max(scale.pairs // 2, 1),
        warm=msgspec.structs.replace(plan, count=IN_FLIGHT),
        plan=plan,
        parts=(Part.SANDBOX,),
        what=f"{scale.upscales} JPEGs of {side_px}×{side_px} a round, fast, ×2, {IN_FLIGHT} in flight; as above.",
    )

"""Thousands of jobs that wait at one asynchronous provider, held by one relay worker."""

import asyncio
import time
from typing import Any

import msgspec

from bench.load import Plan, run_load
from bench.machine import peak_rss_bytes, tree_pss_bytes
from bench.outside import Emulated, emulated, relaying, route
from bench.postgres_tap import Counts, postgres_tap
from bench.processor import cpu_s
from bench.relay import photo_file
from bench.report import Budget, Chapter, Figure, at_most
from bench.scale import Scale
from bench.stack import Running, Stack

USERS = 200
PHONES = 16
MEGABYTE = 1_000_000
LOOK_AGAIN_S = 0.2
PATIENCE_S = 600.0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Counters at one moment."""

    at_s: float
    worker_cpu_s: float
    redis_commands: int
    statements: int


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What it took to hold that many."""

    jobs: int
    taken_in_s: float
    ordered_s: float
    held_mb: float
    peak_mb: float
    ended_s: float
    polls_per_s: float
    cpu_share: float
    redis_per_s: float
    statements_per_s: float
    window_s: float


async def held(stack: Stack, scale: Scale) -> Chapter:
    """Order, hold, let go: with every prediction running at the same moment in between."""
    async with (
        postgres_tap(stack.embedded) as tap,
        emulated(stack, "predictions", "--spread-s", str(scale.spread_s)) as there,
    ):
        tables = there.table("predictions", stack.folder)
        changed = relaying(stack, tables + route("upscale", "[{ predictions = 1 }]"))
        async with stack.worker("relay", **changed, postgres_dsn=tap.dsn) as worker, stack.broker(**changed):
            found = await _hold(stack, scale, there, worker, tap.counts)
    return _chapter(found, scale)


async def _hold(stack: Stack, scale: Scale, there: Emulated, worker: Running, counts: Counts) -> Held:
    began_s = time.monotonic()
    tally = await run_load(await _plan(stack, scale))
    taken_in_s = time.monotonic() - began_s
    await worker.until(lambda: _are_ordered(there, scale.relayed), within_s=PATIENCE_S)
    ordered_s = time.monotonic() - began_s
    await there.moments()
    before = await _read(stack, worker, counts)
    await asyncio.sleep(scale.hold_s)
    after = await _read(stack, worker, counts)
    polls = len(await there.moments())
    held_mb = tree_pss_bytes(worker.pid) / MEGABYTE
    if (await there.standing()).running != scale.relayed:
        raise RuntimeError("not all orders were in flight: there is no figure")
    released_s = time.monotonic()
    await there.release()
    await worker.until(lambda: _have_ended(stack), within_s=PATIENCE_S)
    ended_s = time.monotonic() - released_s
    await _check(stack, tally.done)
    window_s = after.at_s - before.at_s
    return Held(
        jobs=scale.relayed,
        taken_in_s=taken_in_s,
        ordered_s=ordered_s,
        held_mb=held_mb,
        peak_mb=peak_rss_bytes(worker.pid) / MEGABYTE,
        ended_s=ended_s,
        polls_per_s=polls / window_s,
        cpu_share=(after.worker_cpu_s - before.worker_cpu_s) / window_s,
        redis_per_s=(after.redis_commands - before.redis_commands) / window_s,
        statements_per_s=(after.statements - before.statements) / window_s,
        window_s=window_s,
    )


async def _plan(stack: Stack, scale: Scale) -> Plan:
    body = photo_file(stack.folder, scale.relayed_px)
    tokens = await stack.tokens(USERS)
    query = "operation=upscale&scale=2&quality=fast"
    return Plan(port=stack.port, tokens=tokens, phones=PHONES, count=scale.relayed, body_file=body, query=query)


async def _are_ordered(there: Emulated, jobs: int) -> bool:
    await asyncio.sleep(LOOK_AGAIN_S)
    return (await there.standing()).ordered == jobs


async def _have_ended(stack: Stack) -> bool:
    await asyncio.sleep(LOOK_AGAIN_S)
    row = await stack.database.row("SELECT count(*) AS live FROM jobs WHERE finalized_at IS NULL")
    assert row is not None
    return row["live"] == 0


async def _check(stack: Stack, jobs: int) -> None:
    row = await stack.database.row("SELECT count(*) AS good FROM jobs WHERE state = 'succeeded'")
    assert row is not None
    if row["good"] != jobs:
        raise RuntimeError(f"{row['good']} of {jobs} jobs ended well: there is no figure")


async def _read(stack: Stack, worker: Running, counts: Counts) -> Reading:
    redis: Any = stack.redis
    stats: dict[str, dict[str, int]] = await redis.info("commandstats")
    return Reading(
        at_s=time.monotonic(),
        worker_cpu_s=cpu_s(worker.pid),
        redis_commands=sum(stat["calls"] for name, stat in stats.items() if not name.endswith("info")),
        statements=counts.statements,
    )


def _chapter(found: Held, scale: Scale) -> Chapter:
    def figure(name: str, unit: str, value: float, method: str, budget: Budget | None = None) -> Figure:
        return Figure(name=name, unit=unit, rounds=(value,), method=method, budget=budget)

    size = f"{scale.relayed_px}×{scale.relayed_px}"
    ordered = (
        f"from the first PUT until all predictions run: pictures of {size} over {PHONES} connections, each decoded and "
        "encoded before it leaves, while those that left are asked about."
    )
    jobs, polls = f"{found.jobs:,} jobs", f"over {found.window_s:.0f} s with all of them in flight."
    return Chapter(
        title="Thousands of jobs at an asynchronous provider, one relay worker",
        figures=(
            figure(
                "relay worker's peak RSS",
                "MB",
                found.peak_mb,
                f"VmHWM of the worker process after {jobs} that were all in flight at the same moment and ended well; "
                "the processes that decode and encode are not in it.",
                at_most(500),
            ),
            figure(
                "all resident memory of the worker and those below it while it waits",
                "MB",
                found.held_mb,
                "PSS of worker, image nursery and guarded children.",
            ),
            figure("jobs ordered", "jobs/s", found.jobs / found.ordered_s, ordered),
            figure("jobs taken in meanwhile", "jobs/s", found.jobs / found.taken_in_s, "until the last 202."),
            figure("questions", "polls/s", found.polls_per_s, f"requests at the provider {polls}"),
            figure(
                "processor time of the worker while it waits",
                "%",
                found.cpu_share * 100,
                f"of one core, {polls} Each question is one HTTP exchange; between questions nothing is done.",
            ),
            figure(
                "Redis commands while they wait",
                "commands/s",
                found.redis_per_s,
                f"`INFO commandstats`, broker and worker, {polls} Slots are renewed together, every 10 s: one script, "
                "in which each is a command.",
            ),
            figure(
                "Postgres statements while they wait", "statements/s", found.statements_per_s, f"of the worker, {polls}"
            ),
            figure(
                "from the first end to the last final state",
                "s",
                found.ended_s,
                f"predictions end over {scale.spread_s:.0f} s; every output is fetched, cleaned, encrypted, settled.",
            ),
        ),
    )

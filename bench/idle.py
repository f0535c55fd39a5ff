"""What nothing costs, and what a job costs in Postgres: commands, commits and statements are counted, not timed."""

import asyncio
import time
from typing import Any

import msgspec

from bench.load import Plan, run_load
from bench.postgres_tap import Counts, postgres_tap
from bench.report import Chapter, Figure, at_most
from bench.scale import Scale
from bench.stack import Stack

# Postgres tells what a session did at the latest when it has been idle for ten seconds.
STATISTICS_LATE_S = 11.0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Counters at one moment."""

    at_s: float
    redis_commands: int
    commits: int
    counts: Counts


async def counted(stack: Stack, scale: Scale) -> Chapter:
    """Count while one broker and one worker are idle, then while jobs run one after the other."""
    tokens = await stack.tokens(20)
    plan = Plan(port=stack.port, tokens=tokens, waits=True, count=scale.jobs)
    async with postgres_tap(stack.embedded) as tap:  # noqa: SIM117 -- the two inside need what this one gives
        async with stack.worker("noop", postgres_dsn=tap.dsn), stack.broker(postgres_dsn=tap.dsn):
            await run_load(plan)
            await asyncio.sleep(STATISTICS_LATE_S)
            before = await _read(stack, tap.counts)
            await asyncio.sleep(scale.idle_s)
            idle = await _read(stack, tap.counts)
            tally = await run_load(plan)
            await asyncio.sleep(STATISTICS_LATE_S)
            after = await _read(stack, tap.counts)
    return _chapter(before, idle, after, jobs=tally.done, window_s=scale.idle_s)


def _chapter(before: Reading, idle: Reading, after: Reading, *, jobs: int, window_s: float) -> Chapter:
    def per_job(name: str) -> float:
        pairs = ((idle, before), (after, idle))
        idle_per_s, busy_per_s = (
            (_value(later, name) - _value(earlier, name)) / (later.at_s - earlier.at_s) for later, earlier in pairs
        )
        return (busy_per_s - idle_per_s) * (after.at_s - idle.at_s) / jobs

    commands = (idle.redis_commands - before.redis_commands) / (idle.at_s - before.at_s)
    counted = f"{jobs} no-op jobs, one after the other; what the idle processes cost in that time is taken off."
    return Chapter(
        title="Counted, not timed",
        figures=(
            Figure(
                name="idle Redis commands of one broker and one worker",
                unit="commands/s",
                rounds=(commands,),
                budget=at_most(10),
                method=f"`INFO commandstats` before and after {window_s:.0f} s in which nothing happens.",
            ),
            Figure(
                name="idle Postgres statements of one broker and one worker",
                unit="statements/s",
                rounds=((idle.counts.statements - before.counts.statements) / (idle.at_s - before.at_s),),
                method="counted between the processes and Postgres in the same time: leases, rescue, sweep.",
            ),
            Figure(
                name="Postgres commits per job",
                unit="commits",
                rounds=(per_job("commits"),),
                method=f"`pg_stat_database.xact_commit`, reads included; {counted}",
            ),
            Figure(
                name="Postgres statements per job",
                unit="statements",
                rounds=(per_job("statements"),),
                method=f"Execute and Query messages on the way to Postgres, BEGIN and COMMIT included; {counted}",
            ),
            Figure(
                name="Redis commands per job",
                unit="commands",
                rounds=(per_job("redis_commands"),),
                method=f"`INFO commandstats`; {counted}",
            ),
        ),
    )


def _value(reading: Reading, name: str) -> float:
    return {
        "commits": reading.commits,
        "statements": reading.counts.statements,
        "redis_commands": reading.redis_commands,
    }[name]


async def _read(stack: Stack, counts: Counts) -> Reading:
    row = await stack.database.row("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    assert row is not None
    redis: Any = stack.redis
    stats: dict[str, dict[str, int]] = await redis.info("commandstats")
    commands = sum(stat["calls"] for name, stat in stats.items() if not name.endswith("info"))
    return Reading(
        at_s=time.monotonic(),
        redis_commands=commands,
        commits=row["xact_commit"],
        counts=msgspec.structs.replace(counts),
    )

"""The keyholder alone, as bench.keyholder measures it over its socket."""

import asyncio
import sys

import msgspec

from bench.keyholder import Figures
from bench.report import Chapter, Figure, at_least, at_most
from bench.scale import Scale
from bench.stack import HERE, Stack


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What bench.keyholder prints."""

    memory: str
    verbs: dict[str, Figures]


async def keyholder(stack: Stack, scale: Scale) -> Chapter:
    """Ask a keyholder of its own, one verb after the other; the slowest verb counts."""
    del stack
    reports = [await _measured(scale.key_operations) for _ in range(scale.rounds)]
    method = (
        f"put, open, has and shred over its unix socket, {scale.key_operations // 2} of each, one caller at a time; "
        f"the slowest of the four counts; keys in {reports[0].memory}."
    )
    return Chapter(
        title="Keyholder",
        figures=(
            Figure(
                name="keyholder, one caller",
                unit="operations/s",
                rounds=tuple(float(min(verb.sequential_per_s for verb in r.verbs.values())) for r in reports),
                budget=at_least(5_000),
                method=method,
            ),
            Figure(
                name="keyholder, p50 of an operation",
                unit="ms",
                rounds=tuple(max(verb.p50_ms for verb in r.verbs.values()) for r in reports),
                budget=at_most(0.3),
                method="as above.",
            ),
            Figure(
                name="keyholder, p99 of an operation",
                unit="ms",
                rounds=tuple(max(verb.p99_ms for verb in r.verbs.values()) for r in reports),
                method="as above.",
            ),
            Figure(
                name="keyholder, all at once",
                unit="operations/s",
                rounds=tuple(float(min(verb.pipelined_per_s for verb in r.verbs.values())) for r in reports),
                method="the other half of the operations, sent without waiting for answers.",
            ),
        ),
    )


async def _measured(operations: int) -> Report:
    command = [sys.executable, "-m", "bench.keyholder", "--operations", str(operations)]
    process = await asyncio.create_subprocess_exec(*command, cwd=HERE.parent, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    return msgspec.json.decode(printed, type=Report)

"""Processor time by process: unlike rates, it hardly changes when others use the machine as well."""

import os
from collections.abc import Mapping
from pathlib import Path

from bench.load import Plan, Tally, run_load
from bench.report import Figure
from bench.stack import Stack, children_of

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
Costs = dict[str, float]
"""Milliseconds of processor time per job, by process."""


async def costed(plan: Plan, pids: Mapping[str, int]) -> tuple[Tally, Costs]:
    """Carry out a plan, and tell what each process and those below it took for one job."""
    before_s = {name: cpu_s(pid) for name, pid in pids.items()}
    tally = await run_load(plan)
    if tally.failed or tally.done < 2:
        raise RuntimeError(f"{tally.failed} of {tally.done + tally.failed} jobs went wrong: there is no figure")
    return tally, {name: (cpu_s(pid) - before_s[name]) * 1000 / tally.done for name, pid in pids.items()}


def servers(stack: Stack) -> dict[str, int]:
    """The processes of Postgres and Redis."""
    return {child.name: child.pid for child in stack.embedded.children}


def cost_figures(rounds: list[Costs], what: str) -> tuple[Figure, ...]:
    """One figure per process."""
    return tuple(
        Figure(
            name=f"processor time of {name} per {what}",
            unit="ms",
            rounds=tuple(costs[name] for costs in rounds),
            method="user and system time of the process and those below it, in the rounds above.",
        )
        for name in rounds[0]
    )


def cpu_s(pid: int) -> float:
    """Return the processor time that a process and all below it have taken, those that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S + sum(cpu_s(child) for child in children_of(pid))

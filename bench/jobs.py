"""Jobs over HTTP: how long one takes on an idle system, how many are taken in, how many are done."""

from bench.load import WAIT_S, Plan, Tally, run_load
from bench.processor import Costs, cost_figures, costed, servers
from bench.report import Chapter, Figure, at_least, at_most, percentile
from bench.scale import Scale
from bench.stack import Stack

USERS = 200
PHONES = 16
SLOTS = 16


async def latency(stack: Stack, scale: Scale) -> Chapter:
    """Time whole no-op jobs, one after the other."""
    tokens = await stack.tokens(USERS)
    plan = Plan(port=stack.port, tokens=tokens, waits=True, count=scale.jobs)
    async with stack.worker("noop"), stack.broker():
        await run_load(plan)
        tallies = [(await costed(plan, {}))[0] for _ in range(scale.rounds)]
    method = (
        f"PUT of 100 KB, then GET with `Prefer: wait={WAIT_S}` until final, on one connection, one job at a time, "
        f"{scale.jobs} jobs a round."
    )
    return Chapter(
        title="One no-op job on an idle system",
        figures=(
            Figure(
                name="whole no-op job, p50",
                unit="ms",
                rounds=tuple(percentile(tally.latencies_ms, 50) for tally in tallies),
                budget=at_most(25),
                method=method,
            ),
            Figure(
                name="whole no-op job, p99",
                unit="ms",
                rounds=tuple(percentile(tally.latencies_ms, 99) for tally in tallies),
                budget=at_most(60),
                method="as above.",
            ),
        ),
    )


async def accepted(stack: Stack, scale: Scale) -> Chapter:
    """Count the uploads of 100 KB that one broker process takes in, while nobody runs them."""
    tokens = await stack.tokens(USERS)
    plan = Plan(port=stack.port, tokens=tokens, phones=PHONES, within_s=scale.load_s)
    measured: list[tuple[Tally, Costs]] = []
    async with stack.pretended_worker("noop", "noop"), stack.broker() as broker:
        for _ in range(scale.rounds + 1):
            measured.append(await costed(plan, {"the broker": broker.pid, **servers(stack)}))
            await stack.forget()
    tallies = [tally for tally, _ in measured]
    return Chapter(
        title="Jobs taken in by one broker process",
        figures=(
            Figure(
                name="accepted jobs",
                unit="jobs/s",
                rounds=tuple(tally.per_s for tally in tallies[1:]),
                budget=at_least(300),
                method=_under_load(tallies, "PUT of 100 KB, no worker runs; emptied after each round."),
            ),
            Figure(
                name="accepted jobs, p50 of a PUT under this load",
                unit="ms",
                rounds=tuple(percentile(tally.latencies_ms, 50) for tally in tallies[1:]),
                method="as above.",
            ),
            *cost_figures([costs for _, costs in measured[1:]], "accepted job"),
        ),
    )


async def finished(stack: Stack, scale: Scale) -> Chapter:
    """Count whole no-op jobs of one broker and one worker process."""
    tokens = await stack.tokens(USERS)
    plan = Plan(port=stack.port, tokens=tokens, phones=PHONES, within_s=scale.load_s, waits=True)
    async with stack.worker("noop", slots=SLOTS) as worker, stack.broker() as broker:
        pids = {"the broker": broker.pid, "the worker": worker.pid, **servers(stack)}
        measured = [await costed(plan, pids) for _ in range(scale.rounds + 1)]
    tallies = [tally for tally, _ in measured]
    method = _under_load(tallies, f"PUT of 100 KB and long-poll until final; the worker has {SLOTS} slots.")
    return Chapter(
        title="Whole no-op jobs of one broker and one worker process",
        figures=(
            Figure(
                name="whole no-op jobs",
                unit="jobs/s",
                rounds=tuple(tally.per_s for tally in tallies[1:]),
                budget=at_least(150),
                method=method,
            ),
            Figure(
                name="whole no-op jobs, p50 of a job under this load",
                unit="ms",
                rounds=tuple(percentile(tally.latencies_ms, 50) for tally in tallies[1:]),
                method="as above.",
            ),
            *cost_figures([costs for _, costs in measured[1:]], "whole no-op job"),
        ),
    )


def _under_load(tallies: list[Tally], what: str) -> str:
    share = max(tally.cpu_share for tally in tallies)
    return (
        f"{what} {PHONES} keep-alive connections of {USERS} users in one generator process, which took at most "
        f"{share:.0%} of one core; {tallies[-1].took_s:.1f} s a round after one that is not counted."
    )

"""`make crash`: discover every crash point, try each in every mode, and write down what was found."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.crash.kinds import KINDS, Kind
from tests.crash.lane import Outcome, open_lane
from tests.crash.points import Mode
from tests.crash.report import Report, report, table, totals, write
from tests.crash.sweep import Trial, carry_out, discover, sample, trials
from tests.measured import keep

CONSOLE = Console(emoji=False)  # a point may be called :ring:
MODES = (Mode.KILL, Mode.CUT)


@click.command()
@click.option("--lanes", default=2, show_default=True, help="How many deployments at once; most of a trial is waiting.")
@click.option("--seed", default=7, show_default=True, help="Of the sample.")
@click.option("--sample", "at_most", default=0, help="Try only so many, chosen by the seed; 0: all.")
@click.option("--kind", "kinds", multiple=True, help="Only jobs of this kind; may be repeated.")
@click.option(
    "--mode",
    "modes",
    multiple=True,
    type=click.Choice([mode.value for mode in MODES]),
    help="kill or cut; both if not given.",
)
@click.option("--report", "path", type=click.Path(path_type=Path), help="Write the tables there, as Markdown.")
@click.option("--measured", "kept", type=click.Path(path_type=Path), help="Write the totals there, as JSON.")
def main(
    lanes: int,
    seed: int,
    at_most: int,
    kinds: tuple[str, ...],
    modes: tuple[str, ...],
    path: Path | None,
    kept: Path | None,
) -> None:
    """Kill, or cut the power, at every point that jobs pass; exit with 1 where something was violated."""
    chosen = [kind for kind in KINDS if not kinds or kind.name in kinds]
    began_s = time.monotonic()
    outcomes = asyncio.run(
        _sweep(chosen, [Mode(mode) for mode in modes] or MODES, lanes=lanes, seed=seed, at_most=at_most)
    )
    made = report(outcomes, seed=seed, took_s=time.monotonic() - began_s)
    _show(made)
    if path is not None:
        write(made, path)
    if kept is not None:
        keep(kept, f"make crash SEED={seed}", totals(made))
    sys.exit(1 if made.violations else 0)


async def _sweep(kinds: Sequence[Kind], modes: Sequence[Mode], *, lanes: int, seed: int, at_most: int) -> list[Outcome]:
    CONSOLE.print("Discovering crash points …")
    async with open_lane(seed=seed) as lane:
        points = await discover(lane, kinds, lambda kind, count: CONSOLE.print(f"  {kind.name}: {count}"))
    of = trials(points, modes)
    of = sample(of, seed=seed, at_most=at_most) if at_most else of
    return await _tried(of, lanes=lanes, seed=seed)


async def _tried(of: Sequence[Trial], *, lanes: int, seed: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=CONSOLE
    )
    with bar:
        task = bar.add_task("Trying them", total=len(of))

        def told(outcome: Outcome) -> None:
            outcomes.append(outcome)
            bar.advance(task)
            for violation in outcome.violations:
                bar.console.print(f"[red]{outcome.mode} {outcome.kind}: {outcome.point}: {violation}")

        await carry_out(of, lanes=lanes, seed=seed, told=told)
    return outcomes


def _show(made: Report) -> None:
    CONSOLE.print(table(made))
    for kind, ends in made.ends.items():
        CONSOLE.print(f"{kind}: " + ", ".join(f"{end} {count}" for end, count in ends.items()))
    if made.not_reached:
        CONSOLE.print(
            f"{len(made.not_reached)} points were not passed again: what runs beside a job has no fixed order."
        )


if __name__ == "__main__":
    main()

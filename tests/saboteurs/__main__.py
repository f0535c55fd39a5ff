"""`make saboteurs`: sabotage a copy of the tree, one line at a time, and see that a named test notices."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.measured import keep
from tests.saboteurs.mutants import Mutant, mutants
from tests.saboteurs.tree import Tree, Verdict, copied

COLOURS = {Verdict.KILLED: "green", Verdict.SURVIVED: "bold red", Verdict.BROKEN: "bold yellow"}
TAIL_LINES = 25
ALL_WITHIN_S = 1_800.0
"""For every test that is named, once."""


@click.command()
@click.option("--only", default="", help="Those whose name or file holds this.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the figures there, as JSON.")
@click.option("--verbose", is_flag=True, help="Show what the tests said of those that were not killed.")
def main(only: str, report: Path | None, *, verbose: bool) -> None:
    """Kill every mutant, or say which live; ends with 1 unless all are dead."""
    chosen = [mutant for mutant in mutants() if only in mutant.name or only in mutant.file]
    console = Console()
    with copied() as tree:
        _see_that_all_is_well(console, tree, chosen)
        verdicts = _sabotage(console, tree, chosen, verbose=verbose)
    console.print(_table(chosen, verdicts))
    killed = verdicts.count(Verdict.KILLED)
    console.print(f"{killed} of {len(chosen)} mutants were killed by the test that is named.")
    if report is not None:
        keep(report, "make saboteurs", {"mutants": len(chosen), "killed": killed})
    sys.exit(0 if chosen and killed == len(chosen) else 1)


def _see_that_all_is_well(console: Console, tree: Tree, chosen: Sequence[Mutant]) -> None:
    """A test that fails anyway kills nothing."""
    tests = sorted({mutant.killed_by for mutant in chosen})
    for mutant in chosen:
        with tree.sabotaged(mutant):
            pass
    with console.status(f"{len(tests)} tests on the tree as it is …"):
        verdict, said = tree.run(tests, within_s=ALL_WITHIN_S)
    if verdict is not Verdict.SURVIVED:
        console.print(said, markup=False, highlight=False)
        sys.exit("the tests that are named do not pass on the tree as it is")


def _sabotage(console: Console, tree: Tree, chosen: Sequence[Mutant], *, verbose: bool) -> list[Verdict]:
    verdicts: list[Verdict] = []
    columns = (TextColumn("{task.description:40.40}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(chosen))
        for mutant in chosen:
            progress.update(task, description=mutant.name)
            with tree.sabotaged(mutant):
                verdict, said = tree.run([mutant.killed_by])
            verdicts.append(verdict)
            progress.advance(task)
            if verdict is not Verdict.KILLED:
                console.print(f"[{COLOURS[verdict]}]{verdict}[/]: {mutant.name}")
                if verbose:
                    console.print("\n".join(said.splitlines()[-TAIL_LINES:]), markup=False, highlight=False)
    return verdicts


def _table(chosen: Sequence[Mutant], verdicts: Sequence[Verdict]) -> Table:
    table = Table("mutant", "what it breaks", "file", "test", "verdict", title="Saboteurs")
    for mutant, verdict in zip(chosen, verdicts, strict=True):
        test = mutant.killed_by.removeprefix("tests/").replace("::", " ")
        table.add_row(mutant.name, mutant.breaks, mutant.file, test, f"[{COLOURS[verdict]}]{verdict}[/]")
    return table


if __name__ == "__main__":
    main()

"""`make fuzz`: a coverage-guided fuzzer (Atheris: libFuzzer) on every reader of untrusted bytes, one after another."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.measured import keep

KEPT = Path(".lethe/fuzz")
"""What was found to lead somewhere new, and what was found to be wrong; the next run starts from there."""
CODE = ["broker", "providers", "policies", "workers"]
MOST_BYTES = 65_536
SLOW_S = 10
MEMORY_MIB = 2_048


@click.group(invoke_without_command=True)
@click.option("--seconds", default=60, show_default=True, help="How long in all.")
@click.option("--corpus", default="", help="A folder of files to start from, besides our own.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the figures there, as JSON.")
@click.pass_context
def main(ctx: click.Context, seconds: int, corpus: str, report: Path | None) -> None:
    """Fuzz every target for its share of the time; ends with 1 where something was found."""
    if ctx.invoked_subcommand is None:
        _all(seconds, corpus, report)


@main.command()
@click.argument("name")
@click.argument("options", nargs=-1)
def one(name: str, options: tuple[str, ...]) -> None:
    """Fuzz one target, in this process, until libFuzzer has had enough."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=CODE):
        target = importlib.import_module("tests.fuzz.targets").TARGETS[name]
    for number, seed in enumerate(target.seeds):
        (KEPT / name / f"seed-{number}").write_bytes(seed)
    # The first folder is the one that is written to; whoever lends a corpus gets it back as it was.
    atheris.Setup([sys.argv[0], str(KEPT / name), *options], target.run)
    atheris.Fuzz()


def _all(seconds: int, corpus: str, report: Path | None) -> None:
    console = Console()
    names = sorted(importlib.import_module("tests.fuzz.targets").TARGETS)
    table = Table("target", "runs", "verdict", title="Fuzzing")
    found: list[str] = []
    all_runs = 0
    for name in track(names, "Fuzzing …", console=console):
        done = _fuzz(name, max(1, seconds // len(names)), corpus)
        runs = next((line.split()[1] for line in done.stderr.splitlines() if line.startswith("Done ")), "")
        all_runs += int(runs or 0)
        found += [name] if done.returncode else []
        table.add_row(name, runs, "[green]nothing found[/]" if done.returncode == 0 else "[bold red]found[/]")
        if done.returncode != 0:
            console.print(done.stdout + done.stderr, markup=False, highlight=False)
    console.print(table)
    if report is not None:
        figures = {"targets": len(names), "runs": all_runs, "found": found, "seconds": seconds}
        keep(report, f"make fuzz SECONDS={seconds}", figures)
    sys.exit(1 if found else 0)


def _fuzz(name: str, seconds: int, corpus: str) -> "subprocess.CompletedProcess[str]":
    (KEPT / name).mkdir(parents=True, exist_ok=True)
    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={MOST_BYTES}",
        f"-timeout={SLOW_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
    ]
    command = [sys.executable, "-m", "tests.fuzz", "one", "--", name, *limits, f"-artifact_prefix={KEPT}/found-{name}-"]
    return subprocess.run([*command, *([corpus] if corpus else [])], check=False, capture_output=True, text=True)


if __name__ == "__main__":
    main()

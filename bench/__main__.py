"""`python -m bench`: measures everything and writes docs/performance.md."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import engine, guarantee, idle, jobs, keys, litellm, many, memory, models, policies, relay
from bench.machine import describe
from bench.measured import MEASURED, write_measured
from bench.report import Chapter, merged, render
from bench.scale import FULL, QUICK, Scale
from bench.stack import Stack, open_stack

Measure = Callable[[Stack, Scale], Awaitable[Chapter]]

MEASURES: dict[str, Measure] = {
    "ring": engine.ring,
    "latency": jobs.latency,
    "accepted": jobs.accepted,
    "policies": policies.admission,
    "finished": jobs.finished,
    "uploads": memory.uploads,
    "models": models.throughput,
    "large": models.large,
    "relay": relay.overhead,
    "failover": relay.failover,
    "many": many.held,
    "guarantee": guarantee.cost,
    "counted": idle.counted,
    "keyholder": keys.keyholder,
    "arq-latency": engine.arq_latency,
    "arq-throughput": engine.arq_throughput,
}
DATA = Path(".lethe/data")
PAGE = Path("docs/performance.md")
LITELLM_HELP = "Compare with LiteLLM as well: the interpreter beside which it is installed."


@click.command()
@click.option("--quick", is_flag=True, help="Small samples, nothing slow: a minute, for a first look.")
@click.option(
    "--only", multiple=True, type=click.Choice([*MEASURES, "litellm"]), help="Measure this alone; may be repeated."
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="Where to write the page; by default docs/performance.md."
)
@click.option("--merge", is_flag=True, help="Put what is measured into the page that is there, and keep the rest.")
@click.option("--beside", default="", help="What else ran on the machine, for whoever reads the page.")
@click.option("--litellm", "interpreter", type=click.Path(exists=True, path_type=Path), help=LITELLM_HELP)
@click.option("--data", default=DATA, show_default=True, type=click.Path(path_type=Path), help="Programs and weights.")
def main(
    *,
    quick: bool,
    only: tuple[str, ...],
    output: Path | None,
    merge: bool,
    beside: str,
    interpreter: Path | None,
    data: Path,
) -> None:
    """Measure on real servers, started for this alone, and write the page."""
    machine = describe(data, sys.argv[1:], beside=beside)
    scale = QUICK if quick else FULL
    measures = MEASURES | ({"litellm": partial(litellm.beside, interpreter=interpreter)} if interpreter else {})
    names = [name for name in measures if (name in only if only else name not in scale.left_out)]
    began_s = time.monotonic()
    chapters = asyncio.run(measure({name: measures[name] for name in names}, scale, data))
    target = output or (PAGE if merge or not (only or quick) else None)
    before = PAGE.read_text() if PAGE.exists() else ""
    page = merged(before, machine, chapters) if merge else render(machine, chapters, before="" if only else before)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page)
        for name, chapter in zip(names, chapters, strict=True):
            if name in MEASURED:
                write_measured(target.parent / "measured" / MEASURED[name], machine, chapter)
    print(page)
    print(f"{time.monotonic() - began_s:.0f} s" + (f"; written to {target}" if target else "; nothing was written"))


async def measure(measures: Mapping[str, Measure], scale: Scale, data: Path) -> list[Chapter]:
    """Take the named figures one after the other, each on the same servers."""
    chapters: list[Chapter] = []
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:16}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with tempfile.TemporaryDirectory(dir=data.parent, prefix="bench-", ignore_cleanup_errors=True) as folder:
        async with open_stack(Path(folder) / "stack", data_directory=data) as stack:
            with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
                task = progress.add_task("", total=len(measures))
                for name, take in measures.items():
                    progress.update(task, description=name)
                    chapters.append(await take(stack, scale))
                    await stack.forget()
                    progress.advance(task)
    return chapters


if __name__ == "__main__":
    main()

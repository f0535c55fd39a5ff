"""
`make soak MINUTES=30`: many phones send while everything dies at random, Postgres and Redis too; then all is counted.

`python -m tests.soak --minutes N` ends with 1 where the law was broken, and shows where. What it struck stands in its
table, and with `--report` in a file.
"""

import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from broker.errors import KeyholderUnavailable
from broker.verify import ReceiptInvalid
from tests.chaos_load import Load, Sent
from tests.chaos_strikes import Strikes
from tests.measured import keep
from tests.phone import FINAL
from tests.reconcile import Found, Stores
from tests.residue import files_with, memory_with, seen_in_memory
from tests.third_parties import ThirdParties, running_third_parties
from tests.world import World, running_world

CONSOLE = Console()
QUIET_WITHIN_S = 60.0
BLOW_EVERY_S = 3.0
PHONES = 6
BROKERS = 2
_ERROR = re.compile(rb'"level":"(?:error|critical)"')
_ATTEMPT_FAILED = re.compile(rb'"provider":"([^"]*)","code":"([^"]*)","event":"provider_failed"')
_WORDS = re.compile(rb'"(?:event|logger|exception|exception_code|exception_at|cause)":"([^"]*)"')


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """How long after a blow the first success came that was begun after it, in seconds."""

    p50_s: float
    p99_s: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All of one soak; whatever `violations` holds is a bug."""

    seed: int
    minutes: float
    blows: dict[str, int]
    restarts: int
    jobs: dict[str, int]
    receipts: int
    classes: dict[str, int]
    availability: float
    answered_again: Recovery
    worked_again: Recovery
    broke: dict[str, int]
    """What processes logged as an error of their own: event, exception, where it was raised, its cause."""
    attempts_failed: dict[str, int]
    """Provider and kind of failure."""
    violations: list[str]


async def soak(*, for_s: float, seed: int, blow_every_s: float, phones: int) -> Figures:
    """Run a deployment under load and blows, let it come to rest, and count."""
    began_at_s = time.time()
    async with _opened(seed) as (world, third_parties, load):
        strikes = Strikes(os.getpid(), seed=seed)
        plan = strikes.plan(max(1, int(for_s * 0.85 / blow_every_s)))
        tallying = asyncio.create_task(_tally(third_parties))
        await asyncio.gather(load.run(phones=phones, for_s=for_s), strikes.run(plan, every_s=blow_every_s))
        await world.ready()
        stores = Stores(world.settings.postgres_dsn, world.settings.keyholder_socket, world.blobs)
        found = await _at_rest(stores)
        tallying.cancel()
        receipts, violations = await _receipts(stores, load)
        violations += [*found.violations, *load.faults, *await _lost(stores, load), *third_parties.doubles()]
        violations += await asyncio.to_thread(_residue, world, load, began_at_s)
        return Figures(
            seed=seed,
            minutes=round(for_s / 60, 1),
            blows=dict(Counter(" ".join(done.split()[:2]) for done in strikes.done)),
            restarts=world.restarts,
            jobs=dict(Counter(sent.status or "never asked for" for sent in load.sent)),
            receipts=receipts,
            classes={name: len(ids) for name, ids in msgspec.structs.asdict(found).items()},
            availability=sum(one.is_answered for one in load.asked) / len(load.asked),
            answered_again=recovery(
                strikes.struck_s, [(one.began_s, one.ended_s) for one in load.asked if one.is_answered]
            ),
            worked_again=recovery(strikes.struck_s, [(one.began_s, one.ended_s) for one in load.sent if _worked(one)]),
            broke=dict(broken_in((world.folder / "logs").iterdir())),
            attempts_failed=dict(attempts_failed_in((world.folder / "logs").iterdir())),
            violations=violations,
        )


@asynccontextmanager
async def _opened(seed: int) -> AsyncGenerator[tuple[World, ThirdParties, Load]]:
    folder = Path(tempfile.mkdtemp(prefix="lethe-soak-"))
    try:
        with running_third_parties() as third_parties:
            async with running_world(World(folder, third_parties.config, brokers=BROKERS)) as world:
                load = Load(world.urls, seed=seed)
                await load.open()
                try:
                    yield world, third_parties, load
                finally:
                    await load.aclose()
    finally:
        shutil.rmtree(folder)


async def _tally(third_parties: ThirdParties) -> None:
    while True:
        third_parties.tally()
        await asyncio.sleep(1.0)


async def _at_rest(stores: Stores) -> Found:
    """Compare until everything fits, or the time for that is over; return what was found last."""
    ends_s = time.monotonic() + QUIET_WITHIN_S
    while True:
        try:
            found = await stores.reconcile()
            if not found.violations or time.monotonic() > ends_s:
                return found
        except (OSError, KeyholderUnavailable):
            if time.monotonic() > ends_s:
                raise
        await asyncio.sleep(0.2)


async def _lost(stores: Stores, load: Load) -> list[str]:
    """Jobs that were taken in and are not known, or not final, or final in another way than their phone saw."""
    states = await stores.states()
    accepted = [sent for sent in load.sent if sent.status]
    return [
        f"lost or twice final: {sent.kind} {sent.id} {sent.status}, now {states.get(sent.id)}"
        for sent in accepted
        if sent.status not in FINAL or states.get(sent.id) != sent.status
    ]


async def _receipts(stores: Stores, load: Load) -> tuple[int, list[str]]:
    try:
        return await stores.receipts_verify((await load.get("/v1/privacy/keys")).text), []
    except ReceiptInvalid as exc:
        return 0, [f"receipt: {exc}"]


def _residue(world: World, load: Load, since_s: float) -> list[str]:
    needles = (*load.marks.needles, load.token.encode())
    files = [f"hit in file {name}" for name in files_with(needles, world.folder, since_s=since_s)]
    for place in (Path("/dev/shm"), Path("/tmp")):
        found = files_with(needles, place, since_s=since_s, is_deep=False)
        files += [f"hit in {place}: {name}" for name in found]
    return [*files, *(f"hit in memory of {name}" for name in memory_with(load.marks.needles, world.lethe_pids))]


def broken_in(logs: Iterable[Path]) -> Counter[str]:
    """Count what our processes logged as an error; what servers write of themselves has another form."""
    lines = (line for log in logs for line in log.read_bytes().splitlines() if _ERROR.search(line))
    return Counter(" ".join(found.decode() for found in _WORDS.findall(line)) for line in lines)


def attempts_failed_in(logs: Iterable[Path]) -> Counter[str]:
    """Count the attempts at providers that failed, by provider and kind."""
    found = (match for log in logs for match in _ATTEMPT_FAILED.findall(log.read_bytes()))
    return Counter(f"{provider.decode()} {kind.decode()}" for provider, kind in found)


def _worked(sent: Sent) -> bool:
    return sent.status == "succeeded"


def recovery(struck_s: Sequence[float], successes: Sequence[tuple[float, float]]) -> Recovery:
    """Say how long after each blow the first success came that was begun after it."""
    took = sorted(
        min(later) for blow_s in struck_s if (later := [ended - blow_s for began, ended in successes if began > blow_s])
    )
    if not took:
        return Recovery(p50_s=0.0, p99_s=0.0)
    return Recovery(p50_s=round(took[len(took) // 2], 2), p99_s=round(took[int(len(took) * 0.99)], 2))


def show(figures: Figures) -> None:
    """Write the figures to the terminal."""
    drawn = Table("figure", "value", title=f"Soak, {figures.minutes} min, seed {figures.seed}")
    drawn.add_row("jobs", ", ".join(f"{status} {count}" for status, count in figures.jobs.items()))
    drawn.add_row("blows", ", ".join(f"{blow} {count}" for blow, count in sorted(figures.blows.items())))
    drawn.add_row("processes started again", str(figures.restarts))
    drawn.add_row("receipts verified", str(figures.receipts))
    drawn.add_row("memory of processes", seen_in_memory())
    for name, count in figures.classes.items():
        drawn.add_row(name.replace("_", " "), str(count))
    drawn.add_row("requests answered", f"{figures.availability:.2%}")
    for name, recovery in (("a request", figures.answered_again), ("a job", figures.worked_again)):
        drawn.add_row(f"first success of {name} after a blow", f"p50 {recovery.p50_s} s, p99 {recovery.p99_s} s")
    for failed, count in sorted(figures.attempts_failed.items()):
        drawn.add_row(f"attempts that failed: {failed}", str(count))
    for broken, count in sorted(figures.broke.items()):
        drawn.add_row(f"[yellow]{broken}", str(count))
    CONSOLE.print(drawn)
    for violation in figures.violations:
        CONSOLE.print(f"[red]{violation}")


@click.command()
@click.option("--minutes", default=30.0, show_default=True, help="How long phones send and processes die.")
@click.option("--seed", default=7, show_default=True, help="Of what is sent and of what dies.")
@click.option("--blow-every-s", default=BLOW_EVERY_S, show_default=True, help="How often something dies.")
@click.option("--phones", default=PHONES, show_default=True, help="How many send at once.")
@click.option("--report", "path", type=click.Path(path_type=Path), help="Write the figures there, as JSON.")
def main(minutes: float, seed: int, blow_every_s: float, phones: int, path: Path | None) -> None:
    """Soak a deployment."""
    with Progress(console=CONSOLE) as bar:
        bar.add_task(f"Soaking for {minutes:g} min", total=None)
        figures = asyncio.run(soak(for_s=minutes * 60, seed=seed, blow_every_s=blow_every_s, phones=phones))
    show(figures)
    if path is not None:
        keep(path, f"make soak MINUTES={minutes:g} SEED={seed}", figures)
    sys.exit(1 if figures.violations else 0)


if __name__ == "__main__":
    main()

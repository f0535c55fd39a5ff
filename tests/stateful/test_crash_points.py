"""
Processes are killed, and the power goes, at points that were discovered on running jobs; afterwards the law holds.

The suite tries a sample that a seed tells; `make crash` tries every point of jobs of every kind (docs/decisions/0016).
"""

import os
import random
from pathlib import Path

import pytest

from tests.crash.kinds import KINDS
from tests.crash.lane import Outcome, open_lane
from tests.crash.points import Control, Edge, Hook, Mode, Point, parse, worth
from tests.crash.report import report, table, write
from tests.crash.sweep import Trial, discover, sample, trials
from tests.phone import Marks
from tests.residue import files_with, memory_with

SEED = 7
SAMPLED = {"in-house", "asynchronous provider"}
KILLS, CUTS = 3, 1


async def test_no_upload_outlives_its_job_whatever_dies_at_whichever_point() -> None:
    """Kill -9 at one point of a broker, a worker and the keyholder, and a power cut: 0 violations of any class."""
    kinds = [kind for kind in KINDS if kind.name in SAMPLED]
    outcomes: list[Outcome] = []
    async with open_lane(seed=SEED) as lane:
        points = await discover(lane, kinds, lambda kind, count: None)
        assert {point.kind for found in points.values() for point in found} == WHAT_IS_HOOKED
        own = {
            name: [point for point in found if point.n == 1 and is_of_a_job(point)] for name, found in points.items()
        }
        chosen = sample(trials(own, [Mode.KILL]), seed=SEED, at_most=KILLS)
        chosen += sample(trials(own, [Mode.CUT]), seed=SEED, at_most=CUTS)
        for trial in chosen:
            outcomes.append(await lane.trial(trial.kind, trial.point, trial.mode))  # noqa: PERF401 - told if one breaks
    assert [outcome for outcome in outcomes if outcome.violations or not outcome.is_reached] == []


WHAT_IS_HOOKED = {"commit", "frame", "blob", "request", "ring", "spawn"}


BESIDE_JOBS = (
    *("renew", "rescue", "give_up", "resume", "abandoned", "due", "GET"),
    *("HELLO", "audit.", "notifications."),  # a new connection, the sealing of the record, who is told
)


def is_of_a_job(point: Point) -> bool:
    """Whether every job of the kind passes it, however the loops beside it fall."""
    return not any(word in point.verb for word in BESIDE_JOBS)


def hooked(folder: Path) -> tuple[Control, Hook]:
    """Both sides of a control folder, in this process."""
    control = Control(folder / "hooks")
    return control, Hook(control.folder, "broker")


def test_every_call_is_a_point_before_and_after(tmp_path: Path) -> None:
    """Recorded in their order, counted by verb; what found something to do has a name of its own; nothing else is."""
    control, hook = hooked(tmp_path)
    hook.before("commit", "jobs.receive")
    control.order(Mode.RECORD)
    for found in (False, True):
        hook.after(hook.before("commit", "jobs.rescue"), is_effective=found)
    hook.during(hook.before("blob", "put"))

    assert [str(point) for point in control.passed()] == [
        "broker:commit:jobs.rescue:1:before",
        "broker:commit:jobs.rescue:1:after",
        "broker:commit:jobs.rescue:2:before",
        "broker:commit:jobs.rescue:2:after",
        "broker:commit:jobs.rescue+:1:after",
        "broker:blob:put:1:before",
        "broker:blob:put:1:during",
    ]


def test_a_call_that_began_under_another_order_is_no_point(tmp_path: Path) -> None:
    """Counting begins anew with each order, and what was begun before belongs to nobody."""
    control, hook = hooked(tmp_path)
    control.order(Mode.RECORD)
    old = hook.before("ring", "bell")
    control.order(Mode.RECORD)
    hook.after(old, is_effective=False)
    hook.before("ring", "bell")

    assert [str(point) for point in control.passed()] == ["broker:ring:bell:1:before"]


def test_loops_that_need_no_job_count_once_and_when_they_find_something() -> None:
    """Idle calls would fill the list; the first of each is kept, and every one that did something."""
    idle = [point_of("jobs.rescue", 1), point_of("processes.renew+", 1)]
    passed = [
        point_of("jobs.rescue", 1),
        point_of("jobs.rescue", 2),
        point_of("jobs.rescue+", 1),
        point_of("jobs.rescue+", 2),
        point_of("processes.renew+", 2),
        point_of("jobs.admit", 1),
        point_of("jobs.admit", 2),
        point_of("jobs.admit+", 1),
    ]

    assert [(point.verb, point.n) for point in worth(passed, idle=idle)] == [
        ("jobs.rescue", 1),
        ("jobs.rescue+", 1),
        ("jobs.rescue+", 2),
        ("jobs.admit", 1),
        ("jobs.admit", 2),
    ]


def point_of(verb: str, n: int) -> Point:
    """A point after a commit."""
    return Point(role="broker", kind="commit", verb=verb, n=n, edge=Edge.AFTER)


@pytest.mark.parametrize(("mode", "signal"), [(Mode.KILL, 9), (Mode.CUT, 19)])
def test_an_order_is_carried_out_once_at_its_point(tmp_path: Path, mode: Mode, signal: int) -> None:
    """The process dies, or stands still, at the second call and not before; whoever comes after it goes on."""
    control, hook = hooked(tmp_path)
    control.order(mode, parse("broker:ring:bell:2:after"))
    child = os.fork()
    if child == 0:
        for _ in range(2):
            hook.after(hook.before("ring", "bell"), is_effective=False)
        os._exit(1)
    _, status = os.waitpid(child, os.WUNTRACED)
    died_of = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WSTOPSIG(status)
    if mode is Mode.CUT:
        os.kill(child, 9)
        os.waitpid(child, 0)

    assert died_of == signal
    assert control.is_carried_out
    for _ in range(3):
        hook.after(hook.before("ring", "bell"), is_effective=False)  # this process is still there


def test_residue_is_found_where_it_is(tmp_path: Path) -> None:
    """The control: a mark in a file, as it is or in hex, and one in a process's memory; none that was never there."""
    marks, others = Marks(), Marks()
    (tmp_path / "plain").write_bytes(b"x" * 5000 + marks.picture(64, 64, seed=random.Random(1)))
    (tmp_path / "hex").write_text(f"log line {marks.marker.hex()}")

    assert sorted(files_with(marks.needles, tmp_path)) == ["hex", "plain"]
    assert files_with(others.needles, tmp_path) == []
    if os.geteuid() == 0:
        assert memory_with(marks.needles, [os.getpid()])


def test_figures_name_every_violation(tmp_path: Path) -> None:
    """A hit, a job without an end, a double order and a lost output are each counted where they belong."""
    words = (
        "hit in file x",
        "not final 60 s after it was sent",
        "ordered 2 times",
        "output 404, charged: True",
        "blob",
    )
    outcomes = [outcome(violations=(word,)) for word in words] + [outcome()]
    made = report(outcomes, seed=1, took_s=2.0)
    write(made, tmp_path / "crash.md")

    assert list(made.rows[0].figures.values()) == [1, 1, 1, 1, 1]
    assert len(made.violations) == 5
    assert "| kill | broker | 6 | 6 | 1 | 1 | 1 | 1 | 1 |" in (tmp_path / "crash.md").read_text()
    assert table(made).row_count == 1


def outcome(*, violations: tuple[str, ...] = ()) -> Outcome:
    """What became of a job."""
    return Outcome(
        kind="in-house", point="broker:ring:bell:1:after", mode=Mode.KILL, is_reached=True, violations=violations
    )


def test_a_trial_that_breaks_is_a_violation() -> None:
    """Nothing that cannot be looked at counts as clean."""
    broken = Outcome.broken(KINDS[0], parse("broker:ring:bell:1:after"), Mode.KILL, "broke: TimeoutError")

    assert report([broken], seed=1, took_s=1.0).violations == [broken]


def test_a_sample_has_something_of_everybody() -> None:
    """Chosen by the seed alone; every role and mode has its turn before one has a second."""
    found = [
        Trial(kind=KINDS[0], point=Point(role=role, kind="ring", verb="bell", n=n, edge=Edge.AFTER), mode=mode)
        for role in ("broker", "gpu", "keyholder")
        for n in range(9)
        for mode in (Mode.KILL, Mode.CUT)
    ]
    chosen = sample(found, seed=3, at_most=6)

    assert len({(trial.mode, trial.point.role) for trial in chosen}) == 6
    assert chosen == sample(found, seed=3, at_most=6)

"""What the crash points showed, as figures: for the terminal, for docs/guarantee.md, and as Markdown."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from tests.crash.lane import Outcome
from tests.crash.points import Mode, parse
from tests.residue import seen_in_memory

CLASSES = {
    "hits": ("hit ",),
    "without a final state": ("not final", "row_without_end"),
    "double charges": ("ordered ", "charged_wrongly", "paid_twice"),
    "paid outputs lost unsaid": ("output ",),
}
"""Figures by how their violations begin; `other` is all the rest."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one role in one mode."""

    mode: Mode
    role: str
    points: int
    reached: int
    figures: dict[str, int]

    @property
    def cells(self) -> list[str]:
        """As text, in the order of the table's heads."""
        return [self.mode.value, self.role, str(self.points), str(self.reached), *map(str, self.figures.values())]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of one run."""

    seed: int
    took_s: float
    rows: list[Row]
    ends: dict[str, dict[str, int]]
    """By kind of job: how often it came to which end."""
    violations: list[Outcome]
    not_reached: list[str]


def report(outcomes: Sequence[Outcome], *, seed: int, took_s: float) -> Report:
    """Count."""
    ends: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        ends.setdefault(outcome.kind, Counter())[_end(outcome)] += 1
    groups = sorted({(outcome.mode, parse(outcome.point).role) for outcome in outcomes}, reverse=True)
    return Report(
        seed=seed,
        took_s=round(took_s, 1),
        rows=[_row(mode, role, outcomes) for mode, role in groups],
        ends={kind: dict(found.most_common()) for kind, found in ends.items()},
        violations=[outcome for outcome in outcomes if outcome.violations],
        not_reached=[f"{one.kind}: {one.point}" for one in outcomes if not one.is_reached],
    )


def table(made: Report) -> Table:
    """Draw the figures."""
    drawn = Table(
        "mode",
        "process",
        "points",
        "reached",
        *CLASSES,
        "other",
        title="Crash points",
        caption=f"memory: {seen_in_memory()}",
    )
    for row in made.rows:
        drawn.add_row(*row.cells, style="red" if any(row.figures.values()) else "")
    return drawn


def totals(made: Report) -> dict[str, int]:
    """All of it in a few figures."""
    sums = Counter[str]()
    for row in made.rows:
        sums += Counter({f"{row.mode.value}s": row.points, "reached": row.reached})
        sums.update(row.figures)
    return {"points": sums["kills"] + sums["cuts"], "minutes": round(made.took_s / 60), **sums}


def write(made: Report, path: Path) -> None:
    """Write the tables as Markdown."""
    heads = ["mode", "process", "points", "reached", *CLASSES, "other"]
    lines = [heads, ["---"] * len(heads), *(row.cells for row in made.rows)]
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    ends = "".join(
        f"| {kind} | {', '.join(f'{end}: {count}' for end, count in found.items())} |\n"
        for kind, found in made.ends.items()
    )
    path.write_text(
        f"{text}\nMemory of processes: {seen_in_memory()}.\n\n| job | how it ended |\n| --- | --- |\n{ends}"
    )


def _row(mode: Mode, role: str, outcomes: Sequence[Outcome]) -> Row:
    mine = [one for one in outcomes if one.mode is mode and parse(one.point).role == role]
    found = [violation for outcome in mine for violation in outcome.violations]
    figures = {name: sum(one.startswith(begins) for one in found) for name, begins in CLASSES.items()}
    return Row(
        mode=mode,
        role=role,
        points=len(mine),
        reached=sum(outcome.is_reached for outcome in mine),
        figures={**figures, "other": len(found) - sum(figures.values())},
    )


def _end(outcome: Outcome) -> str:
    words = [word for word in (outcome.status or "broke", outcome.code, outcome.output) if word]
    return " ".join(word for word in words if word != "served")

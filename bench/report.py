"""What was measured, as values and as docs/performance.md; nothing here measures."""

import re
import statistics
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

_BOUND = re.compile(r"^\| (?P<name>[^|]+) \| \*\*[^|]+\*\* \| [≤≥][^|]* \| (?P<verdict>[^|]+) \|", re.MULTILINE)
_ALONE = "Taken by itself:"
_SUMMED = re.compile(r"^\d+ of \d+ budgets are met\..*$", re.MULTILINE)


class Bound(StrEnum):
    """On which side of its budget a figure has to lie."""

    AT_MOST = "≤"
    AT_LEAST = "≥"


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A figure's limit, that was set before it was measured."""

    bound: Bound
    limit: float

    def is_met(self, value: float) -> bool:
        return value <= self.limit if self.bound is Bound.AT_MOST else value >= self.limit

    def ratio(self, value: float) -> float:
        """How many times over, or how large a part of, the limit a value is."""
        return value / self.limit


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured value, the median of its rounds, beside the way it was taken."""

    name: str
    unit: str
    rounds: tuple[float, ...]
    method: str
    budget: Budget | None = None

    @property
    def value(self) -> float:
        return statistics.median(self.rounds)

    @property
    def verdict(self) -> str:
        """Say whether the budget is met, and by how much where it is not."""
        if self.budget is None:
            return "–"
        ratio = self.budget.ratio(self.value)
        return f"met ({ratio:.2f} ×)" if self.budget.is_met(self.value) else f"**missed** ({ratio:.2f} ×)"


class Chapter(msgspec.Struct, frozen=True, kw_only=True):
    """Figures that were taken together."""

    title: str
    figures: tuple[Figure, ...]
    taken: str = ""
    """When, where and beside what, where that is not what the page says at its top."""
    notes: tuple[str, ...] = ()
    """Paragraphs that say what the figures mean."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where and when it was measured."""

    facts: Mapping[str, str]
    """In the order in which they are printed."""


def at_most(limit: float) -> Budget:
    """Set an upper limit."""
    return Budget(bound=Bound.AT_MOST, limit=limit)


def at_least(limit: float) -> Budget:
    """Set a lower limit."""
    return Budget(bound=Bound.AT_LEAST, limit=limit)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of at least two values, never beyond the largest of them."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def number(value: float) -> str:
    """Write three significant digits, or the whole number where it has more."""
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{decimals}f}"


def render(machine: Machine, chapters: Sequence[Chapter], *, before: str = "") -> str:
    """Write the whole page; chapters of the one before that were taken by themselves, and not anew, are kept."""
    lines = ["# Performance", "", "Written by `make bench`; nobody edits it by hand.", ""]
    lines += _table(("what", "value"), [(name, value) for name, value in machine.facts.items()])
    titles = {chapter.title for chapter in chapters}
    own = [
        section for title, section in _sections(before).items() if title not in titles and f"\n\n{_ALONE}" in section
    ]
    return _page("\n".join(lines), [*map(_section, chapters), *own])


def merged(page: str, machine: Machine, chapters: Sequence[Chapter]) -> str:
    """Put chapters in the place of those of the same title, or at the end; each says when it was taken."""
    head, sections = page.partition("\n## ")[0], _sections(page)
    for chapter in chapters:
        sections[chapter.title] = _section(msgspec.structs.replace(chapter, taken=_taken(machine)))
    return _page(_SUMMED.sub("", head).rstrip(), list(sections.values()))


def _sections(page: str) -> dict[str, str]:
    return {section.partition("\n")[0]: f"## {section.rstrip()}" for section in page.split("\n## ")[1:]}


def _page(head: str, sections: Sequence[str]) -> str:
    body = "\n\n".join(sections)
    return f"{head}\n\n{_summary(body)}\n\n{body}\n"


def _taken(machine: Machine) -> str:
    return f"{_ALONE} " + "; ".join(f"{name} {value}" for name, value in machine.facts.items()) + "."


def _section(chapter: Chapter) -> str:
    lines = [f"## {chapter.title}", "", *([chapter.taken, ""] if chapter.taken else [])]
    lines += _table(("figure", "value", "budget", "verdict", "rounds"), [_row(f) for f in chapter.figures])
    lines += ["", *(f"- *{figure.name}*: {figure.method}" for figure in chapter.figures)]
    for note in chapter.notes:
        lines += ["", note]
    return "\n".join(lines)


def _summary(body: str) -> str:
    """Count the budgets of a page's tables, and name those that are missed."""
    verdicts = [(found["name"], found["verdict"]) for found in _BOUND.finditer(body)]
    missed = [name for name, verdict in verdicts if verdict.startswith("**")]
    kept = f"{len(verdicts) - len(missed)} of {len(verdicts)} budgets are met."
    return f"{kept} Missed: {'; '.join(missed)}." if missed else kept


def _row(figure: Figure) -> tuple[str, ...]:
    budget = f"{figure.budget.bound} {number(figure.budget.limit)} {figure.unit}" if figure.budget else "–"
    rounds = " · ".join(number(value) for value in figure.rounds)
    return figure.name, f"**{number(figure.value)} {figure.unit}**", budget, figure.verdict, rounds


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]

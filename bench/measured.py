"""Figures as JSON beside the page, for pages that others make of them; nothing here measures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from bench.report import Chapter, Figure, Machine

MEASURED: Final = {"guarantee": "cost.json"}
"""Which measures are written as JSON as well, and under which name in `measured/` beside the page."""


class Number(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One figure; `value` is the median of its rounds, `bound` and `limit` are its budget, where it has one."""

    name: str
    value: float
    unit: str
    rounds: tuple[float, ...]
    method: str
    bound: str = ""
    limit: float | None = None
    is_met: bool | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, when, on what, and by which commands."""

    when: str
    machine: Mapping[str, str]
    commands: tuple[str, ...]
    figures: tuple[Number, ...]


def write_measured(path: Path, machine: Machine, chapter: Chapter) -> None:
    """Write a chapter's figures; what stood there before goes."""
    facts = {name: fact for name, fact in machine.facts.items() if name not in {"date", "command"}}
    measured = Measured(
        when=machine.facts["date"],
        machine=facts,
        commands=(machine.facts["command"].strip("`"),),
        figures=tuple(map(_number, chapter.figures)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=2) + b"\n")


def _number(figure: Figure) -> Number:
    known = Number(
        name=figure.name,
        value=_short(figure.value),
        unit=figure.unit,
        rounds=tuple(map(_short, figure.rounds)),
        method=figure.method,
    )
    if figure.budget is None:
        return known
    bound, limit = figure.budget.bound.value, figure.budget.limit
    return msgspec.structs.replace(known, bound=bound, limit=limit, is_met=figure.budget.is_met(figure.value))


def _short(value: float) -> float:
    return float(f"{value:.4g}")

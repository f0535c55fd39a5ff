"""`python -m tests.guarantee`: the table of docs/guarantee.md, of tests/plan.toml and what docs/measured/ holds."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from broker.forensics.findings import PrivacyReport
from tests.measured import FOLDER, ROOT, Measured, measured
from tests.phone import FINAL
from tests.soak import Figures

PLAN = ROOT / "tests" / "plan.toml"
PAGE = ROOT / "docs" / "guarantee.md"
BEGIN, END = "<!-- the plan, by python -m tests.guarantee -->\n", "<!-- end of the plan -->\n"
POSTGRES = ("Postgres", "server logs")

Cells = Mapping[str, object]


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is tried, what is expected of it, and where that is shown."""

    id: str
    what: str
    expected: str
    measured: str
    tests: tuple[str, ...]
    source: str = msgspec.field(name="from", default="")


class _Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    row: tuple[Row, ...]


def plan() -> tuple[Row, ...]:
    """Read the plan."""
    return msgspec.toml.decode(PLAN.read_bytes(), type=_Plan).row


def page(text: str, folder: Path = FOLDER) -> str:
    """Return the page with its table made anew; raise ValueError where it has no place for one."""
    if BEGIN not in text or END not in text:
        raise ValueError("docs/guarantee.md has no place for the plan")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{_table(folder)}{END}{rest.split(END)[1]}"


def _table(folder: Path) -> str:
    lines = ["| | what is done | expected | measured | shown by |", "|---|---|---|---|---|"]
    lines += [f"| {r.id} | {r.what} | {r.expected} | {_cell(r, folder)} | {_tests(r)} |" for r in plan()]
    runs = [(name, read(folder / f"{name}.json")) for name in sorted({r.source for r in plan() if r.source})]
    lines += ["", "| figures of | ended | on |", "|---|---|---|"]
    lines += [f"| `{m.command}` | {m.on} | {m.machine} |" for _, m in runs if m is not None]
    return "\n".join(lines) + "\n"


def _tests(row: Row) -> str:
    return " <br> ".join(f"`{test.removeprefix('tests/')}`" for test in row.tests) or "–"


def _cell(row: Row, folder: Path) -> str:
    if not row.source:
        return row.measured
    found = read(folder / f"{row.source}.json")
    if found is None:
        return "not measured yet"
    return row.measured.format_map(FIGURES.get(row.source, _as_they_are)(found))


def read(path: Path) -> Measured | None:
    """Read what a command found; a privacy report is a signed note, whose first line is its statement."""
    if not path.exists():
        return None
    if path.stem == "cost":
        return _bench(path)
    if path.stem != "privacy-report":
        return measured(path)
    report = msgspec.json.decode(path.read_bytes().split(b"\n", 1)[0], type=PrivacyReport)
    machine = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return Measured(command="make forensics", on=report.ended_at, machine=machine, figures=report)


def _bench(path: Path) -> Measured:
    found = msgspec.json.decode(path.read_bytes())
    facts = found["machine"]
    load = facts["load average at start (1, 5, 15 min)"]
    machine = f"{facts['processor']}, Linux {facts['kernel']}, load at start {load}"
    return Measured(
        command="python -m bench --merge --only guarantee", on=found["when"], machine=machine, figures=found
    )


def _cost(found: Measured) -> Cells:
    budgeted = [figure for figure in found.figures["figures"] if "is_met" in figure]
    noop, upscale = (f"{f['value']:g} % ({'met' if f['is_met'] else 'missed'})" for f in budgeted)
    return {"noop_cost": noop, "upscale_cost": upscale}


def _as_they_are(found: Measured) -> Cells:
    return {name: _told(value) for name, value in found.figures.items()}


def _told(value: object) -> object:
    if isinstance(value, Mapping):
        counts = msgspec.convert(value, dict[str, int])
        return ", ".join(f"{name} {count}" for name, count in Counter(counts).most_common())
    if isinstance(value, list):
        return ", ".join(msgspec.convert(value, list[str])) or "nothing"
    return f"{value:,}" if isinstance(value, int) else value


def _report(found: Measured) -> Cells:
    report: PrivacyReport = found.figures
    surfaces = report.surfaces
    after = {surface.name: sum(find.times for find in surface.after) for surface in surfaces}
    ends = Counter[str]()
    for jobs in report.jobs:
        ends.update(jobs.ended)
    return {
        "verdict": report.verdict,
        "jobs": sum(jobs.jobs for jobs in report.jobs),
        "receipts": sum(jobs.receipts for jobs in report.jobs),
        "hits": sum(after.values()),
        "scanned": sum(not surface.not_scanned for surface in surfaces),
        "surfaces": len(surfaces),
        "control_found": sum(surface.control_found for surface in surfaces),
        "control_planted": sum(surface.control_planted for surface in surfaces),
        "ends": _told(ends),
        "longest_s": max(jobs.longest_end_ms or 0 for jobs in report.jobs) / 1000,
        "memory_hits": after.get("process memory", "not scanned"),
        "hidden_mb": round(max(surface.hidden_bytes for surface in surfaces) / 1e6, 1),
        "postgres_hits": sum(hits for name, hits in after.items() if name.startswith(POSTGRES)),
    }


def _soak(found: Measured) -> Cells:
    figures = msgspec.convert(found.figures, Figures)
    return {
        "minutes": figures.minutes,
        "sent": f"{sum(figures.jobs.values()):,}",
        "ended": f"{sum(count for status, count in figures.jobs.items() if status in FINAL):,}",
        "receipts": f"{figures.receipts:,}",
        "struck": sum(figures.blows.values()),
        "violations": len(figures.violations),
        "availability": f"{figures.availability:.1%}",
        "p50_s": figures.answered_again.p50_s,
        "p99_s": figures.answered_again.p99_s,
    }


FIGURES: Mapping[str, Callable[[Measured], Cells]] = {"privacy-report": _report, "soak": _soak, "cost": _cost}


def main() -> None:
    """Make the table anew."""
    PAGE.write_text(page(PAGE.read_text()))
    sys.stdout.write("docs/guarantee.md has the figures.\n")


if __name__ == "__main__":
    main()

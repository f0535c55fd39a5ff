"""Says what a run found in words, and writes it down signed."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.forensics.findings import TYPE, JobsFindings, PrivacyReport, SurfaceFindings, Verdict
from broker.receipts import ReceiptInvalid, Signer, signed_text

_MB = 1e6
_STYLES = {
    Verdict.CLEAN: "bold green",
    Verdict.PARTIAL: "bold yellow",
    Verdict.VOID: "bold red",
    Verdict.LEAK: "bold red",
}
_WORDS = {
    Verdict.CLEAN: "every surface was scanned, every planted leak was found, and nothing is left",
    Verdict.PARTIAL: "nothing is left where it was looked, but it was not looked everywhere",
    Verdict.VOID: "this run proves nothing: the search is not known to find what it looks for, or jobs went astray",
    Verdict.LEAK: "something is left",
}


def show(report: PrivacyReport, console: Console) -> None:
    """Print the report for a person to read."""
    console.print(_surfaces(report))
    console.print(_jobs(report))
    for line in _notes(report):
        console.print(Text(f"  {line}"), soft_wrap=True)
    console.print(Text(f"\n{report.verdict}", style=_STYLES[report.verdict]) + Text(f": {_WORDS[report.verdict]}", ""))
    for reason in report.why:
        console.print(Text(f"  {reason}"), soft_wrap=True)


def write(report: PrivacyReport, signer: Signer, path: Path) -> None:
    """Save it as a signed note, as receipts are: one line of JSON, an empty line, the signature."""
    path.write_text(signer.sign(report))


def is_report(note: str) -> bool:
    """Say whether a note is meant to be a report: nothing of it is believed yet."""
    return f'"type":"{TYPE}"' in note.partition("\n")[0]


def read(note: str, vkeys: list[str]) -> PrivacyReport:
    """Return the report when one of the keys signed it; raise ReceiptInvalid otherwise."""
    try:
        return msgspec.json.decode(signed_text(note, vkeys), type=PrivacyReport)
    except msgspec.DecodeError as exc:
        raise ReceiptInvalid("signed, but not a privacy report") from exc


def _surfaces(report: PrivacyReport) -> Table:
    table = Table("surface", "at the last look", "planted leaks found", "found while live", "found after", box=None)
    for surface in report.surfaces:
        table.add_row(surface.name, *_cells(surface))
    return table


def _cells(surface: SurfaceFindings) -> Iterator[Text]:
    if surface.not_scanned:
        yield Text("not scanned", style="yellow")
    else:
        yield Text(f"{surface.parts} parts, {surface.size_bytes / _MB:.1f} MB")
    is_blind = surface.control_found < surface.control_planted
    yield Text(f"{surface.control_found} of {surface.control_planted}", style="red" if is_blind else "")
    yield Text(", ".join(f"{place} {times}×" for place, times in sorted(surface.live.items())) or "–")
    left = sum(find.times for find in surface.after)
    yield Text(str(left), style="bold red" if left else "green")


def _jobs(report: PrivacyReport) -> Table:
    table = Table("fault", "what happened", "jobs ended", "receipts verified", "destroyed within", box=None)
    for jobs in report.jobs:
        ended = ", ".join(f"{times} {status}" for status, times in jobs.ended.items())
        table.add_row(jobs.fault, jobs.words, ended, str(jobs.receipts), _took(jobs))
    return table


def _took(jobs: JobsFindings) -> str:
    return "–" if jobs.longest_end_ms is None else f"{jobs.longest_end_ms / 1000:.2f} s"


def _notes(report: PrivacyReport) -> Iterator[str]:
    receipts = sum(jobs.receipts for jobs in report.jobs)
    longest = max((jobs.longest_end_ms for jobs in report.jobs if jobs.longest_end_ms is not None), default=None)
    yield f"{report.markers} markers and {report.keys} keys, each looked for in {len(report.encodings)} encodings."
    yield f"{receipts} receipts, each verified."
    if longest is not None:
        yield f"Longest time between final decision and the last copy being gone: {longest / 1000:.2f} s."
    hidden = max((surface.hidden_bytes for surface in report.surfaces), default=0)
    if hidden:
        yield f"{hidden / _MB:.1f} MB of memory are hidden from root too (memfd_secret)."
    for find in (find for surface in report.surfaces for find in surface.after):
        yield f"LEFT {find.phase}: {find.what}, {find.encoding}, {find.times}× in {find.part}"
    yield "Not looked at: " + "; ".join(report.left_out) + "."

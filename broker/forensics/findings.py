"""What a run found, and what that comes to: the vocabulary of the privacy report."""

from enum import StrEnum
from typing import Final

import msgspec

TYPE: Final = "lethe/privacy-report/v1"


class Verdict(StrEnum):
    """What a run comes to; the exit code of `lethe forensics` says it too."""

    CLEAN = "clean"  # every surface was scanned, every planted leak found, and nothing is left
    PARTIAL = "partial"  # nothing is left where it was looked, and it was not looked everywhere
    VOID = "void"  # the search is not known to find what it looks for: it says nothing
    LEAK = "leak"  # something is left


EXIT_CODES: Final = {Verdict.CLEAN: 0, Verdict.PARTIAL: 3, Verdict.VOID: 4, Verdict.LEAK: 5}


class Find(msgspec.Struct, frozen=True, kw_only=True):
    """Something found, where, and how it was written down."""

    phase: str
    what: str
    encoding: str
    part: str
    times: int


class SurfaceFindings(msgspec.Struct, kw_only=True):
    """What one surface showed; counts are of finds."""

    name: str
    not_scanned: str = ""
    """Why it was not scanned at least once."""
    parts: int = 0
    size_bytes: int = 0
    hidden_bytes: int = 0
    """Memory that nobody can read, root neither, such as memfd_secret; this and the two before: at the last look."""
    control_planted: int = 0
    control_found: int = 0
    missed: list[str] = []
    """Encodings in which a planted leak was not found."""
    live: dict[str, int] = {}
    """Places of markers that were found while jobs ran, as they may be."""
    after: list[Find] = []


class JobsFindings(msgspec.Struct, kw_only=True):
    """What became of the jobs of one fault."""

    fault: str
    words: str
    jobs: int
    ended: dict[str, int]
    is_as_expected: bool
    receipts: int
    """How many receipts were issued, each of which was verified."""
    longest_end_ms: int | None = None
    """The longest time between final decision and the last copy of ours being gone."""


class PrivacyReport(msgspec.Struct, kw_only=True):
    """What is signed."""

    type: str = TYPE
    verdict: Verdict = Verdict.VOID
    why: list[str] = []
    began_at: str
    ended_at: str = ""
    versions: dict[str, str]
    encodings: list[str]
    markers: int = 0
    keys: int = 0
    surfaces: list[SurfaceFindings] = []
    jobs: list[JobsFindings] = []
    left_out: list[str]
    """What was not looked at, for everybody to know."""


def judge(report: PrivacyReport, *, expected_live: dict[str, set[str]]) -> None:
    """Write the verdict, and every reason why it is not `clean`."""
    left = [f"{find.what} is left in {surface.name}" for surface in report.surfaces for find in surface.after]
    scanned = [surface for surface in report.surfaces if not surface.not_scanned]
    blind = [
        f"a planted leak was not found in {surface.name}: {', '.join(surface.missed) or 'none was planted'}"
        for surface in scanned
        if surface.missed or not surface.control_planted
    ]
    blind += [
        f"{place} was not seen in {surface.name} while jobs ran"
        for surface in scanned
        for place in sorted(expected_live.get(surface.name, set()) - surface.live.keys())
    ]
    odd = [f"jobs of `{jobs.fault}` ended as {jobs.ended}" for jobs in report.jobs if not jobs.is_as_expected]
    unseen = [f"{s.name} was not scanned: {s.not_scanned}" for s in report.surfaces if s.not_scanned]
    report.why = list(dict.fromkeys([*left, *blind, *odd, *unseen]))
    if left:
        report.verdict = Verdict.LEAK
    elif blind or odd or not scanned:
        report.verdict = Verdict.VOID
    else:
        report.verdict = Verdict.PARTIAL if unseen else Verdict.CLEAN

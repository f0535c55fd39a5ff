"""What a run of `lethe forensics` comes to, and how it is written down."""

from io import StringIO
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from broker.forensics.faults import FAULTS, QUICK
from broker.forensics.findings import EXIT_CODES, Find, JobsFindings, PrivacyReport, SurfaceFindings, Verdict, judge
from broker.forensics.report import read, show, write
from broker.forensics.story import phases
from broker.receipts import ReceiptInvalid, Signer

LEFT = Find(phase="after success", what="prompt of a job", encoding="hex", part="logs/broker.log", times=2)


def surface(**changed: object) -> SurfaceFindings:
    good = SurfaceFindings(name="app logs", parts=3, size_bytes=1000, control_planted=12, control_found=12)
    return msgspec.structs.replace(good, **changed)


def report(*surfaces: SurfaceFindings, is_as_expected: bool = True) -> PrivacyReport:
    jobs = JobsFindings(
        fault="success",
        words="the provider answers",
        jobs=1,
        ended={"succeeded": 1},
        is_as_expected=is_as_expected,
        receipts=1,
        longest_end_ms=1230,
    )
    return PrivacyReport(
        began_at="2026-01-01T00:00:00Z",
        versions={"python": "3.11"},
        encodings=["raw"],
        surfaces=list(surfaces),
        jobs=[jobs],
        left_out=["what nobody looks at"],
    )


def printed(found: PrivacyReport) -> str:
    out = StringIO()
    show(found, Console(file=out, width=200))
    return out.getvalue()


@pytest.mark.parametrize(
    ("surfaces", "verdict"),
    [
        ([surface()], Verdict.CLEAN),
        ([surface(after=[LEFT])], Verdict.LEAK),
        ([surface(), surface(name="loopback", not_scanned="only root may")], Verdict.PARTIAL),
        ([surface(not_scanned="only root may")], Verdict.VOID),
        ([surface(control_found=11, missed=["hex"])], Verdict.VOID),
        ([surface(control_planted=0)], Verdict.VOID),
        ([surface(after=[LEFT], control_found=11, missed=["hex"])], Verdict.LEAK),
        ([surface(after=[LEFT], not_scanned="it broke half-way")], Verdict.LEAK),
    ],
)
def test_only_a_run_that_saw_everything_is_clean(surfaces: list[SurfaceFindings], verdict: Verdict) -> None:
    """A leak is a leak however it was found; what was not proven is void, and what was not scanned never clean."""
    found = report(*surfaces)
    judge(found, expected_live={})
    assert found.verdict is verdict
    assert bool(found.why) == (verdict is not Verdict.CLEAN)


def test_what_should_have_been_seen_live_has_to_be() -> None:
    """A search that does not find plaintext while it is there says nothing by not finding it later."""
    for live, verdict in (({}, Verdict.VOID), ({"prompt": 1}, Verdict.CLEAN)):
        found = report(surface(live=live))
        judge(found, expected_live={"app logs": {"prompt"}})
        assert found.verdict is verdict


def test_jobs_that_go_astray_prove_nothing() -> None:
    """Where a fault did not do what it was to do, the run is void."""
    found = report(surface(), is_as_expected=False)
    judge(found, expected_live={})
    assert found.verdict is Verdict.VOID


def test_every_verdict_has_its_exit_code() -> None:
    """Nothing but a clean run is a success; 1 and 2 are for runs that could not be made."""
    assert EXIT_CODES[Verdict.CLEAN] == 0
    assert len(set(EXIT_CODES.values())) == len(Verdict)
    assert not {1, 2} & set(EXIT_CODES.values())


def test_the_report_says_what_was_not_scanned_and_what_is_left() -> None:
    """A person reads what was not scanned, where a leak is, how long ends took, and what nobody looked at."""
    found = report(surface(after=[LEFT]), surface(name="loopback capture", not_scanned="only root may"))
    judge(found, expected_live={})
    text = printed(found)
    for words in (
        "not scanned",
        "loopback capture was not scanned: only root may",
        "LEFT after success: prompt of a job, hex, 2× in logs/broker.log",
        "1.23 s",
        "1 receipts, each verified",
        "Not looked at: what nobody looks at.",
        "leak: something is left",
    ):
        assert words in text, words


def test_the_report_is_signed(tmp_path: Path) -> None:
    """What is saved is a signed note that reads back as it was; with one letter changed it is refused."""
    signer, found = Signer("a.test/key", Ed25519PrivateKey.generate()), report(surface())
    judge(found, expected_live={})
    file = tmp_path / "privacy-report.json"
    write(found, signer, file)
    assert read(file.read_text(), [signer.vkey]) == found
    with pytest.raises(ReceiptInvalid, match="no signature"):
        read(file.read_text().replace('"clean"', '"cleaN"'), [signer.vkey])


def test_strikes_come_one_by_one() -> None:
    """What kills a part hits every job that runs: it comes by itself, after what ends jobs one by one."""
    order = [[fault.name for fault in some] for some in phases(tuple(FAULTS.values()))]
    assert order == [
        ["success", "in-house", "failure", "cancel", "deadline"],
        ["worker"],
        ["broker"],
        ["keyholder"],
        ["redis"],
    ]
    assert set(QUICK) <= FAULTS.keys()

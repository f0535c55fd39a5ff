"""`lethe forensics`, as a sceptic runs it, and against a stack that does leak."""

import base64
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker.forensics.encodings import Encoding
from broker.forensics.faults import FAULTS, Fault, Scene, answering
from broker.forensics.findings import EXIT_CODES, Verdict
from broker.forensics.markers import Place
from broker.forensics.orders import Ordered
from broker.forensics.places import LOOPBACK, MEMORY
from broker.forensics.provider import Reply
from broker.forensics.report import read
from broker.forensics.story import Plan, investigate
from tests.stack import DATA
from tests.up_process import lethe, plain_environment, processes_of

WITHIN_S = 500
FOR_ROOT = {"Redis heap", MEMORY, "deleted files that are open", LOOPBACK}
IS_ROOT = os.geteuid() == 0


def test_nothing_is_left(tmp_path: Path) -> None:
    """
    headpix-2: the quick form: all is scanned that rights allow, every planted leak found, nothing left, the report
    signed.
    """
    output = tmp_path / "report.json"
    run = subprocess.run(
        lethe("forensics", "--quick", "--output", str(output)),
        cwd=tmp_path,
        env=plain_environment(TMPDIR=str(tmp_path), COLUMNS="200"),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    expected = Verdict.CLEAN if IS_ROOT else Verdict.PARTIAL
    assert run.returncode == EXIT_CODES[expected], run.stdout + run.stderr
    assert not run.stderr
    assert f"{expected}: " in run.stdout
    assert ("not scanned" in run.stdout) != IS_ROOT
    found = re.search(r"verified with the key (\S+)", run.stdout)
    assert found
    report = read(output.read_text(), [found[1]])
    assert report.verdict is expected
    assert {jobs.fault: jobs.ended for jobs in report.jobs} == {
        "success": {"succeeded": 1},
        "failure": {"failed": 1},
        "cancel": {"canceled": 1},
    }
    assert sum(jobs.receipts for jobs in report.jobs) == 3
    assert all(jobs.longest_end_ms is not None for jobs in report.jobs)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert not processes_of(tmp_path)


async def test_nothing_is_left_when_everything_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill -9 of worker, broker with half an upload, keyholder and Redis: each job ends, and nothing of it is left."""
    monkeypatch.setenv("LETHE_DATA_DIR", str(DATA))
    strikes = tuple(fault for fault in FAULTS.values() if fault.is_strike)
    report = (await investigate(Plan(faults=strikes), watch=lambda _: None)).report
    assert report.verdict is (Verdict.CLEAN if IS_ROOT else Verdict.PARTIAL), report.why
    assert [jobs.fault for jobs in report.jobs] == ["worker", "broker", "keyholder", "redis"]
    assert sum(jobs.receipts for jobs in report.jobs) == 3  # half an upload was never a job


async def test_a_stack_that_leaks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file left in a temporary directory, and a line in a log: the verdict is `leak`, and both places are named."""
    monkeypatch.setenv("LETHE_DATA_DIR", str(DATA))
    with tempfile.NamedTemporaryFile(prefix="careless-") as spool:

        async def careless(scene: Scene, jobs: Sequence[Ordered]) -> None:
            [job] = jobs
            spool.write(b"data:" + base64.b64encode(b"1" + job.planted.markers[Place.COMMENT] + b"2"))
            spool.flush()
            with (scene.stage.directory / "logs" / "broker.log").open("ab") as log:
                log.write(b'{"event":"oops","prompt":"' + job.planted.prompt.encode() + b'"}\n')
            await answering(Reply.DONE)(scene, jobs)

        fault = Fault(name="careless", words="somebody is careless", cause=careless, ends_as=frozenset({"succeeded"}))
        signed = await investigate(Plan(faults=(fault,)), watch=lambda _: None)
        surfaces = {surface.name: surface for surface in signed.report.surfaces}
        found = {
            (name, find.what, find.encoding, find.part.rpartition("/")[2])
            for name, surface in surfaces.items()
            for find in surface.after
        }
        assert found == {
            ("temporary directories", "comment of job 1 of careless", Encoding.BASE64_1, Path(spool.name).name),
            ("app logs", "prompt of job 1 of careless", Encoding.RAW, "broker.log"),
        }
    assert signed.report.verdict is Verdict.LEAK
    assert {name for name, surface in surfaces.items() if surface.not_scanned} == (set() if IS_ROOT else FOR_ROOT)
    scanned = [surface for surface in surfaces.values() if not surface.not_scanned]
    assert all(surface.control_found == surface.control_planted == len(Encoding) for surface in scanned)

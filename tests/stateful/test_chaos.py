"""Everything is killed and paused while many phones send: the short form of `make soak`, which see (tests/soak.py)."""

import subprocess
import sys
from pathlib import Path

import msgspec

from tests.measured import measured
from tests.soak import Figures

ROOT = Path(__file__).parents[2]
MINUTES = 3.0
ENDS_WITHIN_S = 600


def test_whatever_dies_no_upload_outlives_its_job(tmp_path: Path) -> None:
    """Kill -9 and pauses for every part, Postgres and Redis too, in-house and at providers: the law holds, at rest."""
    # A process of its own: what is struck is whatever it has started, and nothing of this suite's.
    report = tmp_path / "soak.json"
    command = [sys.executable, "-m", "tests.soak", "--minutes", str(MINUTES)]
    done = subprocess.run(
        [*command, "--report", str(report)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    figures = msgspec.convert(measured(report).figures, Figures)
    assert figures.violations == []
    assert set(figures.classes.values()) == {0}
    assert len(figures.blows) >= 9
    assert figures.receipts > 10
    assert {"succeeded", "failed"} <= figures.jobs.keys()

"""Sixty-four hands on one job; `python -m tests.races 1000` is the long form."""

import json
import secrets
import subprocess
import sys
from pathlib import Path

from broker.settings import Settings
from tests.races import race


async def test_sixty_four_hands_on_one_job_end_it_once(settings: Settings) -> None:
    """Cancels, finishes, deadlines and rescues at once: one outcome, one final receipt, one charge, whoever wins."""
    seed = secrets.randbits(32)
    won = [state async for state in race(settings, 12, seed=seed)]
    assert len(won) == 12, seed


def test_the_long_form_runs_by_itself(tmp_path: Path) -> None:
    """As `make races` starts it, and its figures are written."""
    report = tmp_path / "races.json"
    command = [sys.executable, "-m", "tests.races", "2", "--seed", "7", "--report", str(report)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(report.read_text())["figures"]["rounds"] == 2

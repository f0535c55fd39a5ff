"""`make laws`: the long form of the machine of use cases (tests/stateful/test_use_cases.py), and what came of it."""

import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from tests.measured import ROOT, keep

TEST = "tests/stateful/test_use_cases.py"
EXAMPLES = 10_000
STEPS = 30


@click.command()
@click.option("--report", required=True, type=click.Path(path_type=Path), help="Write the figures there, as JSON.")
def main(report: Path) -> None:
    """Try 10,000 orders of use cases and faults; end with 1 where one of them breaks the law."""
    began_s = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", TEST, "--hypothesis-profile=long", "--hypothesis-show-statistics"]
    ended = subprocess.run(command, check=False, cwd=ROOT).returncode
    if ended not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        sys.exit("the run was broken off, and says nothing about the law")
    broken = ended == pytest.ExitCode.TESTS_FAILED
    minutes = round((time.monotonic() - began_s) / 60)
    keep(report, "make laws", {"examples": EXAMPLES, "steps": STEPS, "violations": int(broken), "minutes": minutes})
    sys.exit(int(broken))


if __name__ == "__main__":
    main()

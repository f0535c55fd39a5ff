"""`make bench` in its short form: every budget of the design is measured, and none is out of reach."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SLACK = 20.0
"""
A budget is out of reach when it is missed by more than this factor. Beside other tests, with the whole file system
watched, a machine does a fifth of what it does when it is idle; what is slower by an order of magnitude is a fault.
"""
BUDGETED = (
    "ring → worker's first line, p50",
    "ring → worker's first line, p99",
    "whole no-op job, p50",
    "whole no-op job, p99",
    "accepted jobs",
    "whole no-op jobs",
    "broker's peak RSS, 50 uploads of 20 MB at once",
    "model throughput through the broker, of the bare loop",
    "refused → next provider asked, `generate`, p50",
    "all policies together, p50",
    "keyholder, one caller",
    "keyholder, p50 of an operation",
)
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
ROW = re.compile(r"^\| (?P<name>[^|]+) \| \*\*(?P<value>[^|]+)\*\* \| (?P<budget>[^|]+) \| (?P<verdict>[^|]+) \|", re.M)


def rows(page: str) -> dict[str, re.Match[str]]:
    return {found["name"]: found for found in ROW.finditer(page)}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, re.Match[str]]:
    page = tmp_path_factory.mktemp("bench") / "page.md"
    command = [sys.executable, "-m", "bench", "--quick", "--output", str(page)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return rows(page.read_text())


@pytest.mark.parametrize("name", BUDGETED)
def test_each_figure_is_within_reach_of_its_budget(quick: dict[str, re.Match[str]], name: str) -> None:
    """The page says by how much; what has become slower by an order of magnitude fails here."""
    found = quick[name]
    ratio = re.search(r"\(([0-9.]+) ×\)", found["verdict"])
    assert ratio is not None
    is_upper = found["budget"].startswith("≤")
    assert float(ratio[1]) <= SLACK if is_upper else float(ratio[1]) >= 1 / SLACK, found[0]


def test_plain_arq_and_the_bare_loop_stand_beside(quick: dict[str, re.Match[str]]) -> None:
    """The same run measures what Lethe stands on."""
    assert {"plain arq: enqueue → first line, p50", "plain arq: no-op functions", "bare model loop"} <= quick.keys()


def test_what_the_relay_adds_is_measured_with_its_parts(quick: dict[str, re.Match[str]]) -> None:
    """The overhead stands beside the cleaning of a picture and the no-op job that it is counted from."""
    parts = {"one picture cleaned by itself, p50", "whole no-op job beside it, p50", "the emulated API's own time, p50"}
    assert parts | {"relay overhead, `generate`, p50", "relay overhead, `edit`, p50"} <= quick.keys()


def test_the_page_names_every_budget() -> None:
    """docs/performance.md holds every budgeted figure, the idle cost, the large picture, and the commits of a job."""
    page = PAGE.read_text()
    assert set(BUDGETED) <= rows(page).keys()
    assert {name for name in rows(page) if "Redis commands" in name}
    assert {name for name in rows(page) if "commits" in name}
    assert "12-megapixel" in page or "12 MP" in page

"""docs/guarantee.md: its table is made of the plan and of what was measured, and names tests that exist."""

from pathlib import Path

import pytest

from tests.guarantee import PAGE, page, plan
from tests.measured import ROOT, keep, measured


def test_the_page_is_made_of_the_plan_and_the_figures() -> None:
    """`python -m tests.guarantee` would change nothing."""
    assert page(PAGE.read_text()) == PAGE.read_text()


def test_every_row_of_the_plan_is_there_and_names_tests_that_exist() -> None:
    """T1 to T33; a row without a test says that it is not built, or why not here."""
    rows = plan()
    assert [row.id for row in rows if row.id.startswith("T")] == [
        *(f"T{n}" for n in range(1, 26)),
        "T26–28",
        *(f"T{n}" for n in range(29, 34)),
    ]
    for row in rows:
        assert row.tests or "not built yet" in row.measured or "no GPU here" in row.measured, row.id
        for test in row.tests:
            file, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(), test


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    """No figures, no figure."""
    text = page(PAGE.read_text(), tmp_path)
    assert text.count("| not measured yet |") == sum(bool(row.source) for row in plan())


def test_figures_are_kept_with_where_they_come_from(tmp_path: Path) -> None:
    """Command, day and machine stand beside them, and they stand in the table."""
    keep(tmp_path / "races.json", "make races ROUNDS=7", {"rounds": 7, "won": {"canceled": 3, "succeeded": 4}})
    assert measured(tmp_path / "races.json").figures["rounds"] == 7
    text = page(PAGE.read_text(), tmp_path)
    assert "7 rounds, each ended once (succeeded 4, canceled 3)" in text
    assert "| `make races ROUNDS=7` |" in text


def test_a_page_without_a_place_for_it_is_refused() -> None:
    """Nothing is written over what is not the table."""
    with pytest.raises(ValueError, match="no place"):
        page("# Something else\n")

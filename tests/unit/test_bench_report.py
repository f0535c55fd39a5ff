"""The page of measurements: what counts as met, how figures are written, that nothing missed is hidden."""

import pytest

from bench.report import Chapter, Figure, Machine, at_least, at_most, number, percentile, render

MACHINE = Machine(facts={"date": "2031-01-01", "command": "`python -m bench`", "python": "3.11.0"})


def figure(*rounds: float, name: str = "jobs", **changed: object) -> Figure:
    return Figure(name=name, unit="jobs/s", rounds=rounds, method="counted.", **changed)  # pyright: ignore[reportArgumentType]


def page(*figures: Figure) -> str:
    return render(MACHINE, [Chapter(title="Throughput", figures=figures)])


def test_a_figure_is_the_median_of_its_rounds() -> None:
    """One bad round on a noisy machine does not make the figure."""
    assert figure(100, 7, 300).value == 100


@pytest.mark.parametrize(
    ("budget", "value", "is_met"),
    [(at_most(25), 25, True), (at_most(25), 25.1, False), (at_least(300), 300, True), (at_least(300), 299.9, False)],
)
def test_a_budget_includes_its_limit_and_nothing_beyond(budget: object, value: float, is_met: bool) -> None:
    """The limit itself is met, on both kinds of budget."""
    assert figure(value, budget=budget).verdict.startswith("met") is is_met


def test_a_missed_budget_is_printed_as_missed_with_its_ratio() -> None:
    """Whoever reads the page sees by how much."""
    assert figure(150, budget=at_least(300)).verdict == "**missed** (0.50 ×)"
    assert figure(50, budget=at_most(25)).verdict == "**missed** (2.00 ×)"


def test_the_page_names_every_missed_budget_at_its_top() -> None:
    """Nobody has to read to the end to learn what is not met."""
    written = page(
        figure(1, name="slow", budget=at_least(2)), figure(3, name="quick", budget=at_least(2)), figure(1, name="free")
    )

    head = written.partition("## ")[0]

    assert "1 of 2 budgets are met. Missed: slow." in head
    assert "quick" not in head


def test_the_page_holds_machine_value_budget_rounds_and_method() -> None:
    """Every figure stands beside its budget, the rounds it is the median of, and how it was taken."""
    written = page(figure(301, 305, 309, budget=at_least(300)))

    assert "| command | `python -m bench` |" in written
    assert "| jobs | **305 jobs/s** | ≥ 300 jobs/s | met (1.02 ×) | 301 · 305 · 309 |" in written
    assert "- *jobs*: counted." in written


def test_a_table_has_as_many_cells_in_every_row() -> None:
    """A row that is short or long would break the page."""
    rows = [line for line in page(figure(1), figure(2, budget=at_most(3))).splitlines() if line.startswith("|")]

    assert {row.count("|") for row in rows} == {3, 6}


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0.00"), (0.104, "0.10"), (9.994, "9.99"), (9.996, "10.0"), (99.96, "100"), (27_042.4, "27,042")],
)
def test_numbers_have_about_three_digits(value: float, written: str) -> None:
    """More digits would claim what a noisy machine cannot give."""
    assert number(value) == written


def test_a_percentile_is_never_beyond_what_was_measured() -> None:
    """With few samples the 99th percentile is the largest at most."""
    assert percentile([1, 2, 3], 50) == 2
    assert percentile([1, 2, 3], 99) <= 3

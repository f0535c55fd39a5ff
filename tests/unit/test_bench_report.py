"""The page of measurements: what counts as met, how figures are written, that nothing missed is hidden."""

from pathlib import Path

import pytest

from bench.emulated import Moment
from bench.guarantee import Pairs, Taken
from bench.litellm import AT_ONCE, DIRECT, LITELLM, Side, added_ms
from bench.load import Tally
from bench.relay import gaps_ms
from bench.report import Chapter, Figure, Machine, at_least, at_most, merged, number, percentile, render

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


OLD = render(MACHINE, [Chapter(title="First", figures=(figure(1, name="slow", budget=at_least(2)),))])


def test_a_chapter_that_is_taken_by_itself_replaces_its_own_and_no_other() -> None:
    """What was measured before stays word for word; the new chapter says when and how it was taken."""
    other = Chapter(title="Second", figures=(figure(7, name="new", budget=at_least(2)),))

    once = merged(OLD, MACHINE, [other])
    twice = merged(once, Machine(facts={"date": "2031-02-02"}), [other])

    kept = OLD.partition("## First")[2].rstrip()
    assert kept in once
    assert kept in twice
    assert "Taken by itself: date 2031-01-01; command `python -m bench`; python 3.11.0." in once
    assert twice.count("## Second") == 1
    assert "2031-02-02" in twice
    assert "2031-01-01; command" not in twice


def test_the_head_of_a_merged_page_counts_all_of_its_budgets() -> None:
    """A budget that an old chapter misses is not forgotten with the next merge."""
    page = merged(OLD, MACHINE, [Chapter(title="Second", figures=(figure(7, name="new", budget=at_least(2)),))])

    assert "1 of 2 budgets are met. Missed: slow." in page.partition("## ")[0]
    assert merged(page, MACHINE, []) == page


def test_a_whole_run_keeps_what_only_a_run_of_its_own_measures() -> None:
    """`make bench` does not install LiteLLM: that chapter stays until it is taken anew; old chapters of others go."""
    before = merged(OLD, MACHINE, [Chapter(title="Second", figures=(figure(7, name="theirs"),))])

    page = render(MACHINE, [Chapter(title="Third", figures=(figure(1),))], before=before)

    assert "## Second\n\nTaken by itself: date 2031-01-01" in page
    assert "## First" not in page
    anew = render(MACHINE, [Chapter(title="Second", figures=(figure(1, name="ours"),))], before=before)
    assert "theirs" not in anew


def test_notes_stand_below_the_figures() -> None:
    """What a figure means is said where it stands."""
    chapter = Chapter(title="First", figures=(figure(1),), notes=("Slower, since it does more.",))

    assert render(MACHINE, [chapter]).endswith("- *jobs*: counted.\n\nSlower, since it does more.\n")


def test_what_is_added_is_counted_from_the_api_itself_in_the_same_round() -> None:
    """A slow round of the machine is no cost of who is measured."""

    def side(name: str, *rounds: float) -> Side:
        tallies = [Tally(done=2, failed=0, took_s=1, cpu_s=0, latencies_ms=[ms, ms]) for ms in rounds]
        return Side(name=name, at_once=8, tallies=tallies, cpu_ms=[1.0] * len(rounds))

    direct, through = side(DIRECT, 50, 80), side(LITELLM, 60, 100)

    assert added_ms([direct, through], through, 50) == (10, 20)


def test_the_gap_is_from_the_first_providers_answer_to_the_next_ones_request() -> None:
    """The first one's own time and the second one's are not in it; a job that went astray is no figure."""
    refused = [Moment(path="/v1/images/edits", came_ns=0, went_ns=5_000_000)]
    asked = [Moment(path="/v1/images/edits", came_ns=25_000_000, went_ns=99_000_000)]

    assert gaps_ms(refused, asked) == [20]
    with pytest.raises(ValueError, match="zip"):
        gaps_ms(refused, [])


def test_relay_figures_stand_beside_their_budgets() -> None:
    """docs/performance.md has what the relay adds, failover, 2,000 jobs in flight, and LiteLLM from one run."""
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    budgets = {cells[0].removeprefix("| "): cells[2] for cells in rows if len(cells) == 5}

    assert budgets["relay overhead, `generate`, p50"] == "≤ 15.0 ms"
    for name in ("generate", "edit"):
        assert {budgets[f"refused → next provider asked, `{name}`, p{percent}"] for percent in (50, 99)} == {
            "≤ 50.0 ms"
        }
    assert budgets["relay worker's peak RSS"] == "≤ 500 MB"
    assert "after 2,000 jobs that were all in flight at the same moment" in page
    for at_once in AT_ONCE:
        assert {f"LiteLLM, {at_once} at once: answers", f"Lethe, {at_once} at once: whole jobs"} <= budgets.keys()


def test_what_the_guarantee_costs_is_counted_round_by_round() -> None:
    """A quarter less done is a cost of 25 %, however fast the machine was in that round; a fifth more time is 20 %."""

    def taken(*rounds: tuple[float, float]) -> list[Taken]:
        return [Taken(per_s=per_s, cpu_ms=cpu_ms) for per_s, cpu_ms in rounds]

    pairs = Pairs(whole=taken((75, 12), (30, 24), (110, 9)), less=taken((100, 10), (40, 20), (100, 10)))

    assert pairs.throughput_cost == pytest.approx((25, 25, -10))
    assert pairs.processor_cost == pytest.approx((20, 20, -10))

"""The states of a job: one list, told four times, that must not drift apart."""

import re
from pathlib import Path

from broker.jobs import FINAL_STATES, LIVE_STATES, TRANSITIONS, JobState, Outcome
from broker.store.jobs import sources

ROOT = Path(__file__).parents[2]
LIFECYCLE = ROOT / "docs" / "lifecycle.md"


def checked_in(column: str) -> set[str]:
    """The words that a CHECK of the first migration allows in a column of `jobs`."""
    sql = (ROOT / "broker" / "store" / "migrations" / "0001_first.sql").read_text()
    jobs = sql.split("CREATE TABLE jobs", 1)[1].split("CREATE TABLE", 1)[0]
    found = re.search(rf"CHECK \({column} IN \(([^)]*)\)\)", jobs)
    assert found
    return set(re.findall(r"'(\w+)'", found[1]))


def test_every_state_has_its_transitions() -> None:
    """TRANSITIONS names each state once, and leads nowhere else."""
    assert set(TRANSITIONS) == set(JobState)
    assert set().union(*TRANSITIONS.values()) <= set(JobState)


def test_the_check_allows_the_states_of_the_enum() -> None:
    """Postgres knows the same states and outcomes as the code."""
    assert checked_in("state") == {state.value for state in JobState}
    assert checked_in("outcome") == {outcome.value for outcome in Outcome}


def test_final_states_are_the_outcomes() -> None:
    """A settling job becomes exactly what was decided."""
    assert {state.value for state in FINAL_STATES} == {outcome.value for outcome in Outcome}
    assert frozenset(JobState) == FINAL_STATES | LIVE_STATES


def test_only_settling_leads_to_a_final_state() -> None:
    """Settle is the only door."""
    for state in FINAL_STATES:
        assert sources(state) == ["settling"]


def test_every_live_state_can_end() -> None:
    """From every live state a final one can be reached."""
    for start in LIVE_STATES:
        reached: set[JobState] = set()
        ahead = {start}
        while ahead:
            reached |= ahead
            ahead = set[JobState]().union(*(TRANSITIONS[state] for state in ahead)) - reached
        assert reached & FINAL_STATES, start


def test_nothing_settling_runs_again() -> None:
    """Once an outcome is decided a job is only destroyed, never run or paid for again."""
    assert TRANSITIONS[JobState.SETTLING] == FINAL_STATES | {JobState.SETTLING}


def test_the_drawing_has_the_same_arrows() -> None:
    """docs/lifecycle.md draws TRANSITIONS, no arrow more or less; a state's arrow to itself need not be drawn."""
    states = {state.value for state in JobState}
    arrows = re.findall(r"(\w+) --> (\w+)", LIFECYCLE.read_text())
    drawn = {(a, b) for a, b in arrows if a in states and b in states and a != b}
    assert drawn == {(a.value, b.value) for a, following in TRANSITIONS.items() for b in following if a != b}

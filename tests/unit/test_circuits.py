"""When a provider is left alone, and when it is tried again: one outcome after the other, on a clock of the test's."""

import pytest

from broker.circuits import (
    CHECKED_S,
    LONGEST_OPEN_S,
    LONGEST_RATE_LIMITED_S,
    OPEN_S,
    RATE_LIMITED_S,
    TRIPPED_S,
    Circuit,
    CircuitState,
)
from providers.failures import FailureKind

NOW_S = 1_700_000_000.0
TRANSPORT = (
    FailureKind.OVERLOADED,
    FailureKind.PROVIDER_ERROR,
    FailureKind.NETWORK,
    FailureKind.TIMEOUT,
    FailureKind.BAD_OUTPUT,
    FailureKind.LOST,
    FailureKind.UNCERTAIN,
)
HARMLESS = (
    FailureKind.INVALID_INPUT,
    FailureKind.CONTENT_REJECTED,
    FailureKind.UNSUPPORTED,
    FailureKind.CANCELED,
)


class Watched:
    """A circuit and the clock that it lives by."""

    def __init__(self) -> None:
        self.now_s = NOW_S
        self.circuit = Circuit()

    def hears(self, *kinds: FailureKind | None, after_s: float | None = None) -> None:
        for kind in kinds:
            self.circuit = self.circuit.after(kind, now_s=self.now_s, after_s=after_s)

    def sees(self, *kinds: FailureKind | None) -> None:
        for kind in kinds:
            self.circuit = self.circuit.checked(kind, now_s=self.now_s)

    def waits(self, seconds: float) -> None:
        self.now_s += seconds

    @property
    def state(self) -> CircuitState:
        return self.circuit.state(self.now_s)

    @property
    def left_s(self) -> float:
        return self.circuit.standing(self.now_s).retry_in_s


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.mark.parametrize("kind", TRANSPORT)
def test_five_failures_in_a_row_open(watched: Watched, kind: FailureKind) -> None:
    """The fifth opens for ten seconds, and says which kind it was."""
    watched.hears(*[kind] * 4)
    assert watched.state is CircuitState.CLOSED
    watched.hears(kind)
    standing = watched.circuit.standing(watched.now_s)
    assert (standing.state, standing.reason, standing.failures) == (CircuitState.OPEN, kind, 5)
    assert standing.retry_in_s == OPEN_S


def test_a_success_between_failures_begins_the_row_anew(watched: Watched) -> None:
    """Four, a success, four: it takes work."""
    watched.hears(*[FailureKind.NETWORK] * 4, None, *[FailureKind.TIMEOUT] * 4)
    assert watched.state is CircuitState.CLOSED


def test_more_than_half_of_a_minute_opens(watched: Watched) -> None:
    """Failures that never come five in a row count by their share, once ten outcomes are known."""
    pattern = (FailureKind.NETWORK, None) * 5
    watched.hears(*pattern)
    assert watched.state is CircuitState.CLOSED
    watched.hears(FailureKind.NETWORK)
    assert watched.state is CircuitState.OPEN


def test_few_outcomes_say_nothing_about_a_share(watched: Watched) -> None:
    """Six failures of nine do not open."""
    bad = FailureKind.NETWORK
    watched.hears(bad, bad, None, bad, bad, None, bad, bad, None)
    assert watched.state is CircuitState.CLOSED


def test_what_is_longer_ago_than_a_minute_does_not_count(watched: Watched) -> None:
    """Old failures leave the window."""
    watched.hears(*(FailureKind.NETWORK, None) * 4, FailureKind.NETWORK, None)
    watched.waits(61)
    watched.hears(FailureKind.NETWORK, None, FailureKind.NETWORK)
    assert watched.state is CircuitState.CLOSED


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_is_not_its_fault_changes_nothing(watched: Watched, kind: FailureKind) -> None:
    """A refused picture or word says nothing about a provider, however often; nor does it end a row of failures."""
    watched.hears(*[kind] * 50)
    assert watched.circuit == Circuit()
    watched.hears(*[FailureKind.NETWORK] * 4, kind, FailureKind.NETWORK)
    assert watched.state is CircuitState.OPEN


@pytest.mark.parametrize("kind", [FailureKind.AUTH, FailureKind.PAYMENT])
def test_refused_credentials_and_an_empty_account_open_at_once(watched: Watched, kind: FailureKind) -> None:
    """For a quarter of an hour, at the first time."""
    watched.hears(kind)
    assert (watched.state, watched.left_s) == (CircuitState.OPEN, TRIPPED_S)


def test_a_rate_limit_is_kept(watched: Watched) -> None:
    """As long as the provider says, five seconds when it says nothing, a minute at most, and never no time at all."""
    for after_s, expected_s in ((None, RATE_LIMITED_S), (12.0, 12.0), (3600.0, LONGEST_RATE_LIMITED_S), (0.0, 1.0)):
        watched.circuit = Circuit()
        watched.hears(FailureKind.RATE_LIMITED, after_s=after_s)
        assert (watched.state, watched.left_s) == (CircuitState.OPEN, expected_s)


def test_a_rate_limit_shortens_nothing(watched: Watched) -> None:
    """What is known to last a quarter of an hour is not over in five seconds."""
    watched.hears(FailureKind.PAYMENT, FailureKind.RATE_LIMITED)
    assert watched.circuit.reason is FailureKind.PAYMENT
    assert watched.left_s == TRIPPED_S


def test_it_is_left_alone_twice_as_long_each_time(watched: Watched) -> None:
    """Ten seconds, twenty, forty … five minutes: while probes keep failing."""
    watched.hears(*[FailureKind.NETWORK] * 5)
    lengths_s = [watched.left_s]
    for _ in range(7):
        watched.waits(watched.left_s)
        assert watched.state is CircuitState.HALF_OPEN
        watched.hears(FailureKind.TIMEOUT)
        lengths_s.append(watched.left_s)
    assert lengths_s == [10, 20, 40, 80, 160, LONGEST_OPEN_S, LONGEST_OPEN_S, LONGEST_OPEN_S]
    assert watched.circuit.reason is FailureKind.TIMEOUT


def test_late_failures_do_not_lengthen_it(watched: Watched) -> None:
    """Attempts that were under way when it opened are no probes."""
    watched.hears(*[FailureKind.NETWORK] * 5)
    watched.waits(4)
    watched.hears(*[FailureKind.NETWORK] * 20)
    assert watched.left_s == OPEN_S - 4
    watched.waits(watched.left_s)
    watched.hears(FailureKind.NETWORK)
    assert watched.left_s == 2 * OPEN_S


def test_a_probe_that_succeeds_closes_and_forgets(watched: Watched) -> None:
    """The next opening is a first one, and old failures are no share of anything."""
    watched.hears(*[FailureKind.NETWORK] * 30)
    watched.waits(OPEN_S)
    watched.hears(None)
    assert watched.circuit == Circuit()
    watched.hears(*[FailureKind.NETWORK] * 5)
    assert watched.left_s == OPEN_S


def test_a_late_success_does_not_close(watched: Watched) -> None:
    """One that was under way when it opened says nothing about now."""
    watched.hears(FailureKind.PAYMENT, None)
    assert watched.state is CircuitState.OPEN


def test_two_failed_checks_open_before_users_find_out(watched: Watched) -> None:
    """One may be chance; the second opens, until after the next check."""
    watched.sees(FailureKind.NETWORK)
    assert watched.state is CircuitState.CLOSED
    watched.waits(30)
    watched.sees(FailureKind.NETWORK)
    assert (watched.state, watched.left_s) == (CircuitState.OPEN, CHECKED_S)


def test_failing_checks_keep_it_open(watched: Watched) -> None:
    """While every check fails, no user's job goes there first."""
    watched.sees(FailureKind.NETWORK, FailureKind.NETWORK)
    for _ in range(20):
        watched.waits(36)
        assert watched.state is CircuitState.OPEN
        watched.sees(FailureKind.NETWORK)


def test_a_good_check_between_bad_ones_begins_anew(watched: Watched) -> None:
    """Two in a row, not two in all."""
    watched.sees(FailureKind.NETWORK, None, FailureKind.NETWORK)
    assert watched.state is CircuitState.CLOSED


def test_a_failed_check_of_a_half_open_circuit_is_a_failed_probe(watched: Watched) -> None:
    """It opens again at the first one."""
    watched.hears(*[FailureKind.NETWORK] * 5)
    watched.waits(OPEN_S)
    watched.sees(FailureKind.NETWORK)
    assert (watched.state, watched.left_s) == (CircuitState.OPEN, CHECKED_S)
    assert watched.circuit.openings == 2


@pytest.mark.parametrize("kind", [FailureKind.AUTH, FailureKind.PAYMENT])
def test_a_check_that_is_refused_opens_at_once(watched: Watched, kind: FailureKind) -> None:
    """Credentials do not come back by chance."""
    watched.sees(kind)
    assert (watched.state, watched.left_s) == (CircuitState.OPEN, TRIPPED_S)


@pytest.mark.parametrize("kind", [FailureKind.NETWORK, FailureKind.OVERLOADED, FailureKind.AUTH])
def test_a_good_check_closes(watched: Watched, kind: FailureKind) -> None:
    """It is as good as a probe that has succeeded: no user's job is needed to find out."""
    watched.hears(*[kind] * 5)
    assert watched.state is CircuitState.OPEN
    watched.sees(None)
    assert watched.circuit == Circuit()


@pytest.mark.parametrize("kind", TRANSPORT)
def test_a_good_check_closes_what_checks_have_opened(watched: Watched, kind: FailureKind) -> None:
    """Whatever they were answered."""
    watched.sees(kind, kind)
    assert watched.state is CircuitState.OPEN
    watched.sees(None)
    assert watched.circuit == Circuit()


@pytest.mark.parametrize(
    "kind",
    [
        FailureKind.PAYMENT,
        FailureKind.RATE_LIMITED,
        FailureKind.PROVIDER_ERROR,
        FailureKind.BAD_OUTPUT,
        FailureKind.TIMEOUT,
    ],
)
def test_a_good_check_says_nothing_about_what_it_cannot_see(watched: Watched, kind: FailureKind) -> None:
    """A question is answered without money, next to a limit on orders, and by a server whose orders fail."""
    watched.hears(*[kind] * 5)
    watched.sees(None)
    assert watched.state is CircuitState.OPEN


def test_a_rate_limited_check_says_nothing(watched: Watched) -> None:
    """We ask too often, and that is all."""
    watched.sees(*[FailureKind.RATE_LIMITED] * 10)
    assert watched.circuit == Circuit()


def test_good_checks_do_not_hide_failures(watched: Watched) -> None:
    """A provider that answers questions and fails orders opens all the same, and for longer each time."""
    for _ in range(5):
        watched.hears(FailureKind.PROVIDER_ERROR)
        watched.sees(None)
    assert watched.left_s == OPEN_S
    watched.waits(OPEN_S)
    watched.sees(None)
    watched.hears(FailureKind.PROVIDER_ERROR)
    assert watched.left_s == 2 * OPEN_S


def test_a_clock_that_was_set_back_locks_nobody_out(watched: Watched) -> None:
    """An end that lies further away than any opening lasts is not believed: one attempt finds out."""
    watched.hears(FailureKind.AUTH)
    watched.waits(-3600)
    assert watched.state is CircuitState.HALF_OPEN
    watched.hears(None)
    assert watched.circuit == Circuit()


def test_a_clock_that_was_set_back_leaves_no_outcome_behind(watched: Watched) -> None:
    """Outcomes of a time that has not come yet are dropped."""
    watched.hears(*(FailureKind.NETWORK, None) * 4)
    watched.waits(-3600)
    watched.hears(FailureKind.NETWORK, None, FailureKind.NETWORK)
    assert watched.state is CircuitState.CLOSED
    assert len(watched.circuit.tallies) == 1


def test_a_circuit_does_not_grow() -> None:
    """Hours of outcomes are remembered as a minute of tallies."""
    circuit = Circuit()
    for n in range(5000):
        circuit = circuit.after(None, now_s=NOW_S + n)
    assert len(circuit.tallies) <= 6

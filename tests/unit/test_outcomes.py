"""How an attempt's end becomes a job's outcome."""

import pytest

from broker.jobs import Outcome
from providers.failures import FailureKind
from workers.outcomes import CODES, Ending, HandOver, Stopped, failed, provider_failed


@pytest.mark.parametrize("kind", FailureKind)
def test_every_failure_of_a_provider_has_a_stable_code(kind: FailureKind) -> None:
    """No kind of failure is without a code, and none makes a job succeed."""
    ending = provider_failed(kind)

    assert (ending.outcome, ending.outputs) == (Outcome.FAILED, ())
    assert ending.code == CODES[kind]
    assert ending.code.replace("_", "").isalpha()


def test_codes_tell_a_user_what_can_be_done() -> None:
    """Kinds share a code only where it is the same to the user: an account of ours, or a provider that is full."""
    shared = [{kind for kind in CODES if CODES[kind] == code} for code in set(CODES.values())]
    assert sorted(kinds for kinds in map(sorted, shared) if len(kinds) > 1) == [
        [FailureKind.AUTH, FailureKind.PAYMENT],
        [FailureKind.OVERLOADED, FailureKind.RATE_LIMITED],
    ]


def test_a_job_that_was_stopped_says_only_its_code() -> None:
    """What ends a job whatever other providers there are holds its ending, and no content."""
    stopped = Stopped(failed("refused"))
    assert (str(stopped), stopped.ending) == ("refused", Ending(outcome=Outcome.FAILED, code="refused"))


def test_a_job_that_goes_on_elsewhere_has_no_outcome() -> None:
    """A hand-over names a pool, and waits for nothing unless it says so."""
    assert HandOver(pool="relay") == HandOver(pool="relay", after_s=0.0)
    assert not hasattr(HandOver(pool="relay"), "outcome")


def test_a_success_has_no_code() -> None:
    """A code says what went wrong."""
    assert Ending(outcome=Outcome.SUCCEEDED).code == ""
    assert failed("key_lost") == Ending(outcome=Outcome.FAILED, code="key_lost")

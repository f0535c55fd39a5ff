"""How an attempt's end becomes a job's outcome."""

import pytest

from broker.jobs import Outcome
from providers.base import FailureKind
from workers.outcomes import CODES, Ending, failed, provider_failed


@pytest.mark.parametrize("kind", FailureKind)
def test_every_failure_of_a_provider_has_a_stable_code(kind: FailureKind) -> None:
    """No kind of failure is without a code, and none makes a job succeed."""
    ending = provider_failed(kind)

    assert (ending.outcome, ending.outputs) == (Outcome.FAILED, ())
    assert ending.code == CODES[kind]
    assert ending.code.replace("_", "").isalpha()


def test_codes_tell_failures_apart() -> None:
    """Two kinds never share a code."""
    assert len(set(CODES.values())) == len(CODES) == len(FailureKind)


def test_a_success_has_no_code() -> None:
    """A code says what went wrong."""
    assert Ending(outcome=Outcome.SUCCEEDED).code == ""
    assert failed("key_lost") == Ending(outcome=Outcome.FAILED, code="key_lost")

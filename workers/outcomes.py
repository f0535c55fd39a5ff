"""How an attempt ended, and what that makes of its job. Pure."""

from collections.abc import Sequence

import msgspec

from broker.jobs import Outcome, Output
from providers.base import FailureKind

CODES: dict[FailureKind, str] = {
    FailureKind.INVALID_INPUT: "invalid_image",
    FailureKind.UNSUPPORTED: "unsupported",
    FailureKind.BAD_OUTPUT: "bad_output",
    FailureKind.OVERLOADED: "provider_overloaded",
    FailureKind.TIMEOUT: "provider_timeout",
    FailureKind.CANCELED: "provider_canceled",
    FailureKind.PROVIDER_ERROR: "provider_error",
}


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome that a worker has reached, with a stable code where it is not a success."""

    outcome: Outcome
    code: str = ""
    outputs: Sequence[Output] = ()


def failed(code: str) -> Ending:
    """The job fails with this code."""
    return Ending(outcome=Outcome.FAILED, code=code)


def provider_failed(kind: FailureKind) -> Ending:
    """What a provider's failure makes of the job where there is no other provider to ask."""
    return failed(CODES[kind])

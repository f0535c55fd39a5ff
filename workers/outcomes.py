"""How an attempt ended, and what that makes of its job. Pure."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from broker.jobs import Outcome, Output
from providers.failures import FailureKind

CODES: dict[FailureKind, str] = {
    FailureKind.INVALID_INPUT: "invalid_image",
    FailureKind.CONTENT_REJECTED: "content_rejected",
    FailureKind.UNSUPPORTED: "unsupported",
    FailureKind.AUTH: "provider_refused",
    FailureKind.PAYMENT: "provider_refused",
    FailureKind.RATE_LIMITED: "provider_overloaded",
    FailureKind.OVERLOADED: "provider_overloaded",
    FailureKind.NETWORK: "provider_unreachable",
    FailureKind.PROVIDER_ERROR: "provider_error",
    FailureKind.TIMEOUT: "provider_timeout",
    FailureKind.BAD_OUTPUT: "bad_output",
    FailureKind.LOST: "provider_lost_it",
    FailureKind.CANCELED: "provider_canceled",
    FailureKind.UNCERTAIN: "provider_uncertain",
}


class Paid(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt at a provider that delivered, and what it cost where the provider says so."""

    attempt: UUID
    cost_usd: float | None


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome that a worker has reached, with a stable code where it is not a success."""

    outcome: Outcome
    code: str = ""
    outputs: Sequence[Output] = ()
    paid: Paid | None = None


class HandOver(msgspec.Struct, frozen=True, kw_only=True):
    """The job goes on elsewhere or later: it waits for a pool again, for `after_s` at least."""

    pool: str
    after_s: float = 0.0


class Stopped(Exception):
    """The job has come to its end, whatever other providers there are; nothing else is wrong."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.code)
        self.ending = ending


def failed(code: str) -> Ending:
    """The job fails with this code."""
    return Ending(outcome=Outcome.FAILED, code=code)


def provider_failed(kind: FailureKind) -> Ending:
    """What a provider's failure makes of the job where there is no other provider to ask."""
    return failed(CODES[kind])

"""
The vocabulary of attempts: one run of a job at one provider, and what is known of the copies that it left there.

Pure. No word here says more than the provider's own answer or its documented terms.
"""

import hashlib
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from broker.custody import Evidence
from providers.base import Deletes, Exposure, Handle, Part, Purge
from providers.failures import FailureKind

PURGE_FOR_S = 86_400.0
"""How long a provider is asked to delete, counted from the end of the job."""


def hook_hash(token: str) -> bytes:
    """Return what is stored of the token in the address of an attempt's hints."""
    return hashlib.sha256(token.encode()).digest()


class AttemptState(StrEnum):
    """Where an attempt stands."""

    SUBMITTING = "submitting"  # its row is committed; whether the order has arrived is not known
    WAITING = "waiting"  # the provider has it, under the stored handle
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `attempts`; the terms are those under which the task was sent."""

    id: UUID
    job_id: UUID
    provider: str
    is_outside: bool
    exposure: Exposure
    retention_s: int
    deletes: Deletes
    state: AttemptState
    kind: FailureKind | None
    after_s: float | None
    handle: Handle | None
    cost_usd: float
    is_estimate: bool
    started_at: datetime
    ended_at: datetime | None
    ago_s: float = 0.0
    """How long ago it ended, where that was asked for."""
    is_late: bool = False
    """Whether the time in which it may be purged is over."""

    @property
    def is_open(self) -> bool:
        """Whether it may still run."""
        return self.ended_at is None

    @property
    def may_run(self) -> bool:
        """Whether it may still be worked on over there, so that it has to be stopped."""
        # Canceled is what settle writes over an attempt that was still open.
        return self.is_open or self.kind in {FailureKind.UNCERTAIN, FailureKind.CANCELED}

    @property
    def is_untraceable(self) -> bool:
        """Whether an order may have arrived of which nobody has a handle."""
        if self.handle is not None and self.handle.id:
            return False
        return self.may_run

    @property
    def needs_asking(self) -> bool:
        """Whether the provider has to be asked to stop or to delete something."""
        if self.handle is None:
            return False
        return self.may_run or bool(self.handle.uploads) or self.deletes is Deletes.API


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended, for whoever ended it; nobody else gets one. Without a kind of failure it succeeded."""

    provider: str
    kind: FailureKind | None
    cost_usd: float
    took_s: float


class Disposition(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a copy at a provider, and the time in those words; `until_s` counts from now."""

    evidence: Evidence
    until_s: float | None = None


def by_terms(attempt: Attempt) -> Disposition:
    """State what the provider's terms say of a copy that no call has deleted."""
    if attempt.deletes is Deletes.NONE and attempt.retention_s > 0:
        return Disposition(evidence=Evidence.KEPT_BY_TERMS, until_s=float(attempt.retention_s))
    return Disposition(evidence=Evidence.EXPIRES_BY, until_s=float(attempt.retention_s))


def dispose(attempt: Attempt, part: Part, purge: Purge | None) -> Disposition:
    """
    State what is known of one part of an attempt once the provider was asked; `purge` is its answer, None is silence.

    An order without a trace is `unknown`, as is a part that the provider was seen to serve after it said that it
    deleted it.
    """
    if purge is not None:
        if part in purge.still_served:
            return Disposition(evidence=Evidence.UNKNOWN)
        if part in purge.deleted:
            return Disposition(evidence=Evidence.DELETED_BY_API)
    elif attempt.needs_asking:
        if attempt.is_late:
            return Disposition(evidence=Evidence.UNKNOWN)
        return Disposition(evidence=Evidence.PURGE_PENDING, until_s=PURGE_FOR_S)
    return Disposition(evidence=Evidence.UNKNOWN) if attempt.is_untraceable else by_terms(attempt)

"""The vocabulary of jobs: their states, which state may follow which, and the row as a struct."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from broker.custody import What
from broker.devices import WrappedKey


class JobState(StrEnum):
    """Where a job stands; docs/lifecycle.md draws it."""

    RECEIVING = "receiving"  # row and custody are committed, the body is still coming in
    QUEUED = "queued"  # the upload is whole and encrypted; nobody has claimed the job
    RUNNING = "running"  # one worker holds the lease and has opened the upload, or is about to
    SETTLING = "settling"  # the outcome is decided; copies are being destroyed
    SUCCEEDED = "succeeded"  # outputs are there, the upload is gone
    FAILED = "failed"  # no outputs, the upload is gone
    CANCELED = "canceled"  # the user ended it, the upload is gone
    EXPIRED = "expired"  # its deadline passed, the upload is gone


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.RECEIVING: frozenset({JobState.RECEIVING, JobState.QUEUED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.SETTLING}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SETTLING}),
    JobState.SETTLING: frozenset(
        {JobState.SETTLING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.EXPIRED}
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELED: frozenset(),
    JobState.EXPIRED: frozenset(),
}

FINAL_STATES = frozenset(state for state, following in TRANSITIONS.items() if not following)
LIVE_STATES = frozenset(JobState) - FINAL_STATES


class Outcome(StrEnum):
    """What a settling job will be once its copies are gone."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `jobs`; `id` never leaves Lethe, `public_id` is the one its user chose."""

    id: UUID
    public_id: UUID
    user_id: str | None
    """None once it was erased, while a provider still has a copy, or a silent store ciphertext."""
    operation: str
    parameters: dict[str, str | int]
    media_type: str
    profile: str
    pool: str
    state: JobState
    outcome: Outcome | None
    code: str
    version: int
    fence: int
    owner: UUID | None
    attempts: int
    crashes: int
    progress: float
    open_copies: int
    upload_bytes: int
    fingerprint: bytes
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    decided_at: datetime | None
    finalized_at: datetime | None
    start_by: datetime
    finish_by: datetime
    outputs_until: datetime | None
    charged: bool
    price: int = 0
    """What it costs its user when it succeeds, in credits; as it was when the job came in."""
    is_sealed: bool = False
    """Whether its outputs are sealed to devices; decided when it was taken in."""
    cost_usd: float = 0.0
    """What its attempts at providers cost so far; estimates where a provider does not say."""
    exposure: str = "local"
    """Who may have seen or kept its picture: the widest exposure of its attempts."""
    provider_copies: str = "none"
    """What is known of the copies that providers had: none, deleted, expires, pending, kept or unknown."""
    finish_within_s: float
    """Seconds left until `finish_by` when the row was read, by the database's clock."""

    @property
    def is_final(self) -> bool:
        """Whether nothing can change this job any more."""
        return self.state in FINAL_STATES


class StoredUpload(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `uploads`: what a job was given, and where its blob and key are; `n` is -1 for what was typed."""

    n: int
    what: What
    blob: str
    key_id: bytes
    keyholder: str
    incarnation: bytes
    media_type: str
    size_bytes: int


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `outputs`: bytes a job made, and where their blob and key are."""

    n: int
    blob: str
    key_id: bytes
    keyholder: str
    incarnation: bytes
    media_type: str
    size_bytes: int
    width: int
    height: int
    destroyed_at: datetime | None
    destroy_at: datetime | None = None
    """Its own time, where it has one: it was delivered, or its user deleted it."""
    is_gone: bool = False
    """Whether it is not served any more: destroyed, or past its own time."""
    is_sealed: bool = False
    """Whether only devices can open it: we have no key, and `key_id` is empty."""
    thumbnail: str = ""
    """The blob of its thumbnail, under the same key; empty where there is none."""
    thumbnail_bytes: int = 0
    wrapped: tuple[WrappedKey, ...] = ()
    """What opens it, on the way from the worker into rows of their own; it is not read back with the output."""

    @property
    def refs(self) -> frozenset[str]:
        """What the custody rows of its copies point to."""
        return frozenset({self.blob, self.thumbnail, self.key_id.hex()} - {""})

"""The vocabulary of custody: which copies exist, who holds them, and how one is known to be gone."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec


class Domain(StrEnum):
    """Whose hands a copy is in."""

    OURS = "ours"
    PROVIDER = "provider"


class What(StrEnum):
    """What the copy is of."""

    UPLOAD = "upload"
    PARAMETERS = "parameters"
    OUTPUT = "output"
    RECORD = "record"  # what a provider wrote down of an attempt: texts, parameters, logs


class Holder(StrEnum):
    """What kind of place holds the copy."""

    BLOB = "blob"  # ciphertext in the blob store; ref = blob name
    KEY = "key"  # what opens the blob; ref = key id, hex
    PROCESS = "process"  # plaintext or key in a process of ours; ref = process id
    PROVIDER = "provider"  # a third party; ref = attempt id


class Evidence(StrEnum):
    """How it is known that a copy is gone; no other words are used."""

    SHREDDED = "shredded"  # key: SHRED answered, HAS = no on another connection
    ABSENT = "absent"  # blob: deleted, and seen absent
    UNREADABLE = "unreadable"  # blob store silent, key gone
    PROCESS_EXITED = "process_exited"  # the process that held it has exited
    OVERWRITTEN = "overwritten"  # buffers zeroed, freed heap perturbed
    LEASE_ENDED = "lease_ended"  # its holder was killed by its guard before its lease ended
    DELETED_BY_API = "deleted_by_api"  # a provider says that it deleted
    EXPIRES_BY = "expires_by"  # a provider's documented time
    KEPT_BY_TERMS = "kept_by_terms"  # a provider keeps it by its terms
    PURGE_PENDING = "purge_pending"  # a provider did not answer yet
    UNKNOWN = "unknown"  # nothing is known


PROVIDER_EVIDENCE = frozenset(
    {
        Evidence.DELETED_BY_API,
        Evidence.EXPIRES_BY,
        Evidence.KEPT_BY_TERMS,
        Evidence.PURGE_PENDING,
        Evidence.UNKNOWN,
    }
)
OUR_EVIDENCE = frozenset(Evidence) - PROVIDER_EVIDENCE


class KeptAt(msgspec.Struct, frozen=True, kw_only=True):
    """Which keyholder has a key: its address, and the incarnation that was given the key."""

    keyholder: str
    incarnation: bytes

    @property
    def detail(self) -> str:
        """As it stands in the custody row of the key."""
        return f"{self.incarnation.hex()} {self.keyholder}"

    @classmethod
    def read(cls, detail: str) -> "KeptAt":
        """Read it from there."""
        incarnation, keyholder = detail.split(" ", 1)
        return cls(keyholder=keyholder, incarnation=bytes.fromhex(incarnation))


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `custody`: a copy that exists, or existed."""

    id: int
    job_id: UUID
    domain: Domain
    holder: Holder
    what: What
    ref: str
    detail: str
    """For a key: where it is kept (KeptAt). For a process: its role. For a provider: its exposure."""
    provider: str = ""
    """Whose hands it is in, where it is not ours: the provider's name in lethe.toml."""
    fence: int
    opened_at: datetime
    closed_at: datetime | None
    evidence: Evidence | None
    until: datetime | None = None
    """The time in the words `expires_by`, `kept_by_terms` and `purge_pending`."""
    is_served: bool
    """Whether it is of an output that the job's user may fetch."""
    is_sealed: bool
    """Whether it is ciphertext of such an output of which devices have the key."""

    @property
    def is_open(self) -> bool:
        """Whether the copy may still exist."""
        return self.closed_at is None


class NewCopy(msgspec.Struct, frozen=True, kw_only=True):
    """A copy that is about to be made; its row comes first."""

    holder: Holder
    what: What
    ref: str
    detail: str = ""
    domain: Domain = Domain.OURS


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What one process held of a job under one fence; naming it says that its buffers are overwritten."""

    process: UUID
    fence: int

    def is_row(self, copy: Copy) -> bool:
        """Whether this is the custody row of it."""
        return (copy.holder, copy.ref, copy.fence) == (Holder.PROCESS, str(self.process), self.fence)

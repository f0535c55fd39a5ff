"""The vocabulary of rights: what a user may ask for, how a request stands, and what became of copies at providers."""

import hashlib
import hmac
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

ERASED = "erased"
"""The folder of the blob store in which the erased are remembered, as long as a backup may know them."""


class Right(StrEnum):
    """What may be asked for."""

    ERASURE = "erasure"
    ACCESS = "access"
    PORTABILITY = "portability"
    RECTIFICATION = "rectification"
    RESTRICTION = "restriction"
    OBJECTION = "objection"


class Ground(StrEnum):
    """Why somebody is erased."""

    ASKED = "asked"
    CHILD = "child"


class RequestStatus(StrEnum):
    """How a request stands, in the words of OpenDSR."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `requests`; without `user_id` its user is gone."""

    id: UUID
    user_id: str | None
    kind: Right
    status: RequestStatus
    received_at: datetime
    expected_by: datetime
    answer_by: datetime
    destroyed_at: datetime | None
    completed_at: datetime | None
    ground: Ground = Ground.ASKED


class ProviderCopies(msgspec.Struct, frozen=True, kw_only=True):
    """So many copies at one provider of which the same is known; `until` is the latest time in those words."""

    provider: str
    evidence: str
    copies: int
    until: datetime | None


def erased_mark(user_id: str) -> str:
    """Return the name under which the blob store remembers that a user was erased: SHA-256 of a random id."""
    return f"{ERASED}/{hashlib.sha256(user_id.encode()).hexdigest()}"


def erasure_id(token: str) -> UUID:
    """
    Return the id of a user's erasure: only who has the token can compute it, and nothing leads back.

    So that who asks again finds the same request, also when the user is gone.
    """
    digest = hmac.digest(token.encode(), b"lethe/erasure/v1", hashlib.sha256)
    return UUID(bytes=digest[:16], version=4)

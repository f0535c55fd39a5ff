"""The vocabulary of rights: what a user may ask for, how a request stands, and what became of copies at providers."""

import hashlib
import hmac
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec


class Right(StrEnum):
    """What may be asked for."""

    ERASURE = "erasure"
    ACCESS = "access"
    PORTABILITY = "portability"
    RECTIFICATION = "rectification"
    RESTRICTION = "restriction"
    OBJECTION = "objection"


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


class ProviderCopies(msgspec.Struct, frozen=True, kw_only=True):
    """So many copies at one provider of which the same is known; `until` is the latest time in those words."""

    provider: str
    evidence: str
    copies: int
    until: datetime | None


def erasure_id(token: str) -> UUID:
    """
    Return the id of a user's erasure: only who has the token can compute it, and nothing leads back.

    So that who asks again finds the same request, also when the user is gone.
    """
    digest = hmac.digest(token.encode(), b"lethe/erasure/v1", hashlib.sha256)
    return UUID(bytes=digest[:16], version=4)

"""
The vocabulary of the audit record: events, the batches in which they are sealed, and what shows that both are whole.

A batch is a signed note (C2SP signed-note, as receipts are) of one line of JSON: the SHA-256 of its events, and that of
the text of the batch before. Nothing here knows a user; an event names a `pseudonym` that goes with the user's row.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from broker.receipts import ReceiptInvalid, canonical, signed_text, whole_seconds

TYPE = "lethe/audit-batch/v1"
FIRST = "0" * 64
"""What stands for the hash of the batch before in the first one."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `audit_events`: ids, and words of closed lists."""

    id: int
    at: datetime
    event: str
    pseudonym: UUID | None
    job_id: UUID | None
    detail: str


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `audit_batches`; `note` is its statement, signed, and what counts."""

    number: int
    first_id: int
    last_id: int
    keep_until: datetime
    note: str
    events_deleted_at: datetime | None = None

    @property
    def hash(self) -> str:
        """The SHA-256 of the text that was signed, in hex."""
        return hashlib.sha256((self.note.rpartition("\n\n")[0] + "\n").encode()).hexdigest()


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed of a batch; times are RFC 3339 in UTC, digests hex."""

    type: str
    number: int
    first_id: int
    last_id: int
    events: int
    digest: str
    previous: str
    sealed_at: str
    keep_until: str


class Broken(Exception):
    """The record is not what was sealed; the message says where, and how it shows."""


def digest(events: Sequence[Event]) -> str:
    """Return the SHA-256 of events in their order, in hex: a JSON array and a newline for each."""
    lines = (
        (event.id, whole_seconds(event.at), event.event, event.pseudonym, event.job_id, event.detail)
        for event in events
    )
    return hashlib.sha256(b"".join(msgspec.json.encode(line) + b"\n" for line in lines)).hexdigest()


def next_statement(
    head: Batch | None, events: Sequence[Event], *, last_id: int, now: datetime, keep_for_s: float
) -> Statement:
    """State that these are all events after the newest batch, up to an id."""
    return Statement(
        type=TYPE,
        number=head.number + 1 if head else 1,
        first_id=head.last_id + 1 if head else 1,
        last_id=last_id,
        events=len(events),
        digest=digest(events),
        previous=head.hash if head else FIRST,
        sealed_at=whole_seconds(now),
        keep_until=whole_seconds(now + timedelta(seconds=keep_for_s)),
    )


def check_batch(batch: Batch, previous: Batch | None, vkeys: list[str]) -> Statement:
    """Return what a batch states when it is signed and follows the one before; raise Broken."""
    where = f"batch {batch.number}"
    try:
        text = signed_text(batch.note, vkeys)
        stated = msgspec.json.decode(text, type=Statement)
    except ReceiptInvalid as exc:
        raise Broken(f"{where}: {exc}") from exc
    except msgspec.DecodeError as exc:
        raise Broken(f"{where}: signed, but not a batch of the record") from exc
    if stated.type != TYPE or canonical(stated) + "\n" != text:
        raise Broken(f"{where}: signed, but not a batch of this version")
    row = (batch.number, batch.first_id, batch.last_id, whole_seconds(batch.keep_until))
    if row != (stated.number, stated.first_id, stated.last_id, stated.keep_until):
        raise Broken(f"{where}: its row says something else than what was signed")
    number, last_id, before = (previous.number, previous.last_id, previous.hash) if previous else (0, 0, FIRST)
    if (stated.number, stated.first_id) != (number + 1, last_id + 1):
        raise Broken(f"batch {number + 1} is missing: what follows is batch {stated.number}")
    if stated.previous != before:
        raise Broken(f"{where}: it does not follow the batch before, which was changed")
    return stated


def check_events(stated: Statement, events: Sequence[Event], *, now: datetime) -> bool:
    """Tell whether the events of a batch are there, all as sealed; False: gone, at their time. Raises Broken."""
    if not events and stated.keep_until <= whole_seconds(now):
        return False
    if len(events) != stated.events:
        raise Broken(f"batch {stated.number}: {stated.events} events were sealed, and there are {len(events)}")
    if digest(events) != stated.digest:
        raise Broken(f"batch {stated.number}: its events are not those that were sealed")
    return True

"""The vocabulary of breaches: what an operator states of one, and the record of it for an authority (GDPR Art. 33)."""

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec

TYPE = "lethe/breach/v1"
REPORT_WITHIN = timedelta(hours=72)

Words = Annotated[str, msgspec.Meta(min_length=1, max_length=4_000)]


class BreachFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What only the operator can say; each is shown to users as it stands, but for `why_late` and `data`."""

    nature: Words
    data: Words
    """Categories of data, and about how many records."""
    consequences: Words
    measures: Words
    contact: Words
    why_late: Annotated[str, msgspec.Meta(max_length=4_000)] = ""
    """Where the authority hears of it later than 72 hours."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is reported to an authority; the letters are those of Art. 33(3)."""

    type: str
    id: UUID
    aware_at: datetime
    declared_at: datetime
    report_by: datetime
    since: datetime | None
    until: datetime | None
    users_concerned: int
    users_told: int
    controller: str
    officer: str
    facts: BreachFacts


def markdown(record: Record) -> str:
    """Write the record for people."""
    window = f"between {record.since} and {record.until}" if record.since else "at any time"
    late = f"Reported late since: {record.facts.why_late}\n" if record.facts.why_late else ""
    return f"""# Notification of a personal data breach (GDPR Art. 33)

Controller: {record.controller or "*to be filled in*"}
Known since {record.aware_at}; declared {record.declared_at}; due {record.report_by}. Reference {record.id}.
{late}
## (a) Nature, people and records concerned

{record.facts.nature}

{record.users_concerned} users, known by random ids alone, whose data was there {window}.

{record.facts.data}

## (b) Contact

{record.facts.contact}{f" ({record.officer})" if record.officer else ""}

## (c) Likely consequences

{record.facts.consequences}

## (d) Measures taken or proposed

{record.facts.measures}

## Communication to the people concerned (Art. 34)

Shown by the app to {record.users_told} of {record.users_concerned} so far.
"""

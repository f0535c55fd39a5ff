"""The vocabulary of consent: what a user gave or withdrew, one event a row, and where that leaves them."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec


class ConsentEvent(StrEnum):
    """What a user did; there is no third."""

    GIVEN = "given"
    WITHDRAWN = "withdrawn"


class Method(StrEnum):
    """How it came to us."""

    APP = "app"  # the user's own app, with the user's token
    OPERATOR = "operator"  # whoever runs Lethe, at a user's word


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """One event; `stated_age` is how many years old the user said to be at least, None where nobody asked."""

    id: UUID
    user_id: str
    notice: str
    purpose: str
    event: ConsentEvent
    stated_age: int | None
    method: Method
    at: datetime


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What counts for a new job: the notice in force, the purposes agreed to under it, and the age that was stated."""

    notice: str
    purposes: frozenset[str]
    stated_age: int


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a user gives and withdraws at once, under one notice."""

    notice: str
    give: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()
    stated_age: int | None = None

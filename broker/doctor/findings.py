"""What an examination finds: in words, with how to mend it."""

from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  # nothing to mend, but good to know
    WARNING = "warning"  # works, and protects less than it could
    PROBLEM = "problem"  # does not work, or breaks a promise


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    level: Level
    what: str
    mend: str = ""


def ok(what: str) -> Finding:
    """All is well."""
    return Finding(level=Level.OK, what=what)


def note(what: str, mend: str = "") -> Finding:
    """Good to know."""
    return Finding(level=Level.NOTE, what=what, mend=mend)


def warning(what: str, mend: str) -> Finding:
    """It protects less than it could."""
    return Finding(level=Level.WARNING, what=what, mend=mend)


def problem(what: str, mend: str) -> Finding:
    """It does not work, or breaks a promise."""
    return Finding(level=Level.PROBLEM, what=what, mend=mend)

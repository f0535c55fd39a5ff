"""The sentences of notices, one file per language, and how times and lists are said in each."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec

HERE = Path(__file__).parent
LANGUAGES = ("en", "tr")
DEFAULT = "en"
"""What is spoken where nobody asked for a language that we have."""

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """One language: sentences by section and name, with {placeholders}."""

    language: str
    title: str
    last_comma: str
    """What stands before the last of several things: ` and `."""
    units: dict[str, tuple[str, str]]
    """The words for one and for several seconds, minutes, hours, days."""
    operations: dict[str, str]
    purposes: dict[str, tuple[str, str]]
    """Of each purpose its name, and what is agreed to."""
    sections: dict[str, dict[str, str]]

    def say(self, section: str, sentence: str, **values: object) -> str:
        """Return one sentence with its placeholders filled in."""
        return self.sections[section][sentence].format(**values)

    def lasting(self, seconds: int) -> str:
        """Say a length of time in the largest unit that says it exactly."""
        unit, length_s = next((unit, length_s) for unit, length_s in _UNITS if seconds % length_s == 0)
        count = seconds // length_s
        return f"{count} {self.units[unit][count != 1]}"

    def listed(self, things: Sequence[str]) -> str:
        """Say several things one after the other."""
        *others, last = things
        return f"{', '.join(others)}{self.last_comma}{last}" if others else last

    def doing(self, operations: Sequence[str]) -> str:
        """Name operations as users know them."""
        return self.listed([self.operations[name] for name in operations])


@cache
def texts_in(language: str) -> Texts:
    """Load a language; one of LANGUAGES."""
    return msgspec.toml.decode((HERE / f"{language}.toml").read_bytes(), type=Texts)

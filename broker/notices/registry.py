"""The retention registry, broker/retention.toml: everything that Lethe keeps anywhere, and for how long."""

from functools import cache
from pathlib import Path

import msgspec

FILE = Path(__file__).parents[1] / "retention.toml"


class Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is alike: its names in one store, and all that is said of them."""

    store: str
    names: tuple[str, ...]
    category: str
    purpose: str
    verified_by: str
    max_age: str = ""
    max_age_s: int | None = None

    @property
    def age(self) -> str:
        """Its greatest age in words."""
        return self.max_age if self.max_age_s is None else f"{self.max_age_s:,} s"


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kept: tuple[Kept, ...]


@cache
def registry() -> tuple[Kept, ...]:
    """Return every row, in the order of the file."""
    return msgspec.toml.decode(FILE.read_bytes(), type=_File).kept

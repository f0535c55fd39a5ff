"""The table of mutants: one line of the tree each, what it would break, and the test that has to notice."""

import tomllib
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("mutants.toml")


class Mutant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One act of sabotage; `line` is what stands once in the file, within one line."""

    name: str
    breaks: str
    file: str
    line: str
    by: str
    killed_by: str

    def applied_to(self, text: str) -> str:
        """Return the file's text with the sabotage in it; raise ValueError unless its line stands there once."""
        if text.count(self.line) != 1:
            msg = f"{self.name}: {self.file} has its line {text.count(self.line)} times"
            raise ValueError(msg)
        return text.replace(self.line, self.by)


def mutants() -> list[Mutant]:
    """Read the table."""
    return msgspec.convert(tomllib.loads(TABLE.read_text())["mutant"], list[Mutant])

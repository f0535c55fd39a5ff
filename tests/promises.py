"""`python -m tests.promises` makes docs/promises.md of tests/promises.toml: every promise, and what shows it."""

import sys
from collections.abc import Sequence

import msgspec

from tests.measured import ROOT

FILE = ROOT / "tests" / "promises.toml"
PAGE = ROOT / "docs" / "promises.md"
APPS = {
    "core": "What all five promise",
    "xpictures": "X pictures",
    "m2r": "M2R",
    "imaginex": "Imaginex",
    "minimal": "Minimal",
    "headpix": "Headpix",
}
HEAD = """# The promises

What five photo apps promise their users, in our words; a profile in `policies/profiles/` keeps each app's. `kept` means
that the tests named show it, `open` says what is missing. `python -m tests.promises` makes this page of
tests/promises.toml, and a test fails on a promise that has neither.
"""


class Promise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One promise; where `open` says something, it is not kept whole."""

    id: str
    says: str
    kept_by: str
    tests: tuple[str, ...] = ()
    open: str = ""

    @property
    def app(self) -> str:
        """Whose promise it is."""
        return self.id.rpartition("-")[0]

    @property
    def status(self) -> str:
        """`kept`, or `open` and why."""
        return f"open: {self.open}" if self.open else "kept"


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    promise: tuple[Promise, ...]


def promises() -> tuple[Promise, ...]:
    """Read them all."""
    return msgspec.toml.decode(FILE.read_bytes(), type=_File).promise


def page() -> str:
    """Return docs/promises.md."""
    found = promises()
    kept = sum(promise.status == "kept" for promise in found)
    parts = [HEAD, f"{kept} of {len(found)} are kept.\n"]
    parts += [_table(title, [promise for promise in found if promise.app == app]) for app, title in APPS.items()]
    return "\n".join(parts)


def _table(title: str, of: Sequence[Promise]) -> str:
    lines = [f"## {title}", "", "| | promise | kept by | shown by | status |", "|---|---|---|---|---|"]
    for promise in of:
        tests = " <br> ".join(f"`{test.removeprefix('tests/')}`" for test in promise.tests) or "–"
        lines.append(f"| {promise.id} | {promise.says} | {promise.kept_by} | {tests} | {promise.status} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the page anew."""
    PAGE.write_text(page())
    sys.stdout.write("docs/promises.md is made\n")


if __name__ == "__main__":
    main()

"""Where each kind of process may write, and why: allowed.toml, and what follows for one file."""

import fnmatch
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from broker.sniff import sniff
from tests.filewatch.writers import Role

FILE: Final = Path(__file__).with_name("allowed.toml")
REPOSITORY: Final = Path(__file__).parents[2]
DELETED: Final = " (deleted)"
_SHARED: Final = ("/tmp", "/var/tmp", "/dev/shm", "/run/shm")

_STACKS: Final = ("lethe-test-*", "lethe-crash-*", "lethe-soak-*", "lethe-races-*", "bench-*", "demo-*", "forensics-*")
"""What tests and commands call the directories of whole stacks that they make beside the temporary files."""
_CANARY: Final = re.compile(rb"canary[0-9a-f]{24}")  # tests/checks.py

_STRICT: Final = frozenset(
    {
        Role.BROKER,
        Role.WORKER,
        Role.KEYHOLDER,
        Role.NURSERY,
        Role.GUARD,
        Role.COMMAND,
        Role.POSTGRES,
        Role.REDIS,
    }
)
"""Who may write nothing at all but what is listed."""


class Allowed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files that some processes may write, and why."""

    roles: tuple[Role, ...]
    paths: tuple[str, ...]
    """Patterns of the shell, in which `*` is also a `/`; {tests}, {stack} and others stand for directories."""
    reason: str
    searched: bool = False
    """Whether they may be written only as long as they hold no upload of a test."""


class Rules:
    """What may be written; `basetemp` is where this run's tests have their directories, if that was chosen."""

    def __init__(self, basetemp: str = "") -> None:
        self.temporary = temporary_directories()
        tests = [basetemp] if basetemp else [f"{folder}/pytest-of-*" for folder in self.temporary]
        stacks = [f"{folder}/{name}" for folder in self.temporary for name in _STACKS]
        self._places = {
            "{tests}": tests,
            "{stack}": [*tests, *stacks, f"{(REPOSITORY / '.lethe').resolve()}/*"],
            "{temporary}": self.temporary,
            "{repository}": [str(REPOSITORY)],
        }
        self._tests = re.compile("|".join(fnmatch.translate(f"{place}/*") for place in tests))
        self._freely = {role: self._compiled(role, searched=False) for role in Role}
        self._searched = {role: self._compiled(role, searched=True) for role in Role}

    def is_allowed(self, role: Role, path: str, head: bytes) -> bool:
        """
        Say whether a process of this kind may write this file, which may have lost its name and which begins like this.

        Lethe's own processes, Postgres and Redis write what is listed and nothing else; the process of the tests, in
        which services run too, writes what it likes outside the temporary directories. Nobody knows whose process it
        was that ended too soon: what it wrote is judged by its content.
        """
        name = path.removesuffix(DELETED)
        if role is Role.UNKNOWN:
            return self._tests.match(name) is not None or not is_upload(head)
        if self._searched[role].fullmatch(name):
            return not is_upload(head)
        is_free = role is Role.OTHER or (role not in _STRICT and not self.is_temporary(path))
        return is_free or bool(self._freely[role].fullmatch(name))

    def is_temporary(self, path: str) -> bool:
        """Say whether a file lies in a directory for temporary files."""
        return any(path.startswith(f"{folder}/") for folder in self.temporary)

    def _compiled(self, role: Role, *, searched: bool) -> re.Pattern[str]:
        rules = [rule for rule in allowed() if role in rule.roles and rule.searched == searched]
        patterns = [filled for rule in rules for path in rule.paths for filled in self._filled(path)]
        return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or r"(?!)")

    def _filled(self, path: str) -> list[str]:
        name, brace, rest = path.partition("}")
        return [f"{place}{rest}" for place in self._places[name + brace]] if brace else [path]


def is_upload(head: bytes) -> bool:
    """Say whether a file is one that a test uploaded, or a picture: from how it begins."""
    return sniff(head) is not None or _CANARY.search(head) is not None


@cache
def allowed() -> tuple[Allowed, ...]:
    """Read the list."""
    return msgspec.toml.decode(FILE.read_bytes(), type=dict[str, tuple[Allowed, ...]])["allowed"]


def temporary_directories() -> list[str]:
    """Name the directories for temporary files that there are, each once."""
    candidates = [tempfile.gettempdir(), *_SHARED]
    return list(dict.fromkeys(str(Path(one).resolve()) for one in candidates if Path(one).is_dir()))

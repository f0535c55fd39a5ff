"""How a process that cannot start says so: one sentence on stderr that tells what to mend, and no traceback."""

import sys
from collections.abc import Generator
from contextlib import contextmanager

from broker.errors import Unavailable
from broker.guard import GuardMissing
from broker.settings import SettingsInvalid
from policies.toml_file import ConfigInvalid

CANNOT_START = (SettingsInvalid, ConfigInvalid, GuardMissing, Unavailable)


@contextmanager
def in_words(*more: type[Exception]) -> Generator[None, None, None]:
    """Turn the errors of a start into a sentence and exit code 1; none of their messages holds content of users."""
    try:
        yield
    except (*CANNOT_START, *more) as exc:
        sys.stderr.write(f"lethe cannot start: {exc}\n")
        sys.exit(1)

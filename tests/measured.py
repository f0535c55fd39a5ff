"""Figures of the long commands, kept in docs/measured/ by the commands themselves, for docs/guarantee.md."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "measured"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of a command found."""

    command: str
    on: str
    """The day in UTC, and when it ended: how fresh it is, whatever the file's own date."""
    machine: str
    figures: Any


def keep(path: Path, command: str, figures: object) -> None:
    """Write down what a command found, as JSON that a reader can follow."""
    cores = len(os.sched_getaffinity(0))
    measured = Measured(
        command=command,
        on=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        machine=f"{cores} cores, Linux {platform.release()}, Python {platform.python_version()}",
        figures=msgspec.to_builtins(figures),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=1) + b"\n")


def measured(path: Path) -> Measured:
    """Read it back."""
    return msgspec.json.decode(path.read_bytes(), type=Measured)

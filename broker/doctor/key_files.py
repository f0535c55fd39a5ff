"""Examines a file with a key: whether it can be read, and by nobody else."""

import stat
from collections.abc import Callable
from pathlib import Path

from broker.doctor.findings import Finding, ok, problem
from broker.settings import SettingsInvalid


def key_file(path: Path, load: Callable[[Path], object], *, what: str, mend: str) -> Finding:
    """Load it as a broker does."""
    try:
        load(path)
    except SettingsInvalid as exc:
        return problem(f"{exc}: {path}", f"{mend}; brokers alone read it")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return problem(f"{path} can be read by others", f"chmod 600 {path}; others may have signed with it")
    return ok(what)

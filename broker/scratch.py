"""The directory of a stack that is started only to be looked at, and goes with it."""

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_directory(purpose: str) -> Generator[Path]:
    """Lend a fresh directory, in the checkout's own where that can be written to; it goes, whatever happens."""
    parent = Path(".lethe").absolute()
    parent = parent if os.access(parent, os.W_OK) else Path(tempfile.gettempdir())
    fresh = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=parent))
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)

"""A copy of the tree in which one line at a time is sabotaged; the tree itself is never touched."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from compileall import compile_dir
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from py_compile import PycInvalidationMode
from xml.etree import ElementTree

from tests.saboteurs.mutants import ROOT, Mutant

SHARED = (".venv", ".peers", ".lethe")
"""What is only read and much too large to be copied."""
LEFT_OUT = (".git", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache", "build")
WITHIN_S = 180.0

_BESIDE = re.compile(r"/(\.venv|\.peers|\.lethe|typings|bench)/")


class Verdict(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"  # its test failed
    SURVIVED = "survived"  # its test passed: the suite is missing one
    BROKEN = "broken"  # its test could not be run to an end, which shows nothing


@contextmanager
def copied() -> "Generator[Tree]":
    """Make a copy that is gone afterwards; the user as whom Postgres runs has to get through to its binaries."""
    with tempfile.TemporaryDirectory(prefix="saboteurs-") as folder:
        Path(folder).chmod(0o711)
        yield Tree(Path(folder) / "tree")


class Tree:
    """The copy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT, *SHARED))
        for name in SHARED:
            if (ROOT / name).exists():
                (folder / name).symlink_to((ROOT / name).resolve())
        # Known by the hash of its source: what is sabotaged is compiled anew, and the rest is not, run after run.
        compile_dir(folder, quiet=2, rx=_BESIDE, invalidation_mode=PycInvalidationMode.CHECKED_HASH)

    @contextmanager
    def sabotaged(self, mutant: Mutant) -> Generator[None]:
        """Put one mutant in place."""
        path = self._folder / mutant.file
        whole = path.read_text()
        path.write_text(mutant.applied_to(whole))
        try:
            yield
        finally:
            path.write_text(whole)

    def run(self, tests: Sequence[str], *, within_s: float = WITHIN_S) -> tuple[Verdict, str]:
        """Run tests in the copy; killed means that one of them failed, and not that it could not begin."""
        report = self._folder.with_suffix(".xml")
        report.unlink(missing_ok=True)
        # Another process group, so that one that hangs can be ended with all that it has started.
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--junitxml={report}", *tests],
            cwd=self._folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        try:
            said, _ = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            return Verdict.BROKEN, f"not over after {within_s:.0f} s"
        finally:
            _end(process)
        return _verdict(report), said


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _verdict(report: Path) -> Verdict:
    if not report.exists():
        return Verdict.BROKEN
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    if any(case.find("failure") is not None or _is_of_teardown(case.find("error")) for case in cases):
        return Verdict.KILLED
    is_clean = cases and all(case.find("error") is None and case.find("skipped") is None for case in cases)
    return Verdict.SURVIVED if is_clean else Verdict.BROKEN


def _is_of_teardown(error: ElementTree.Element | None) -> bool:
    """What a test leaves behind is seen when its fixtures look; one that cannot begin has seen nothing."""
    return error is not None and "teardown" in error.get("message", "")

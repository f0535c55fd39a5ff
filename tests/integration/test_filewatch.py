"""A whole small test run under watch: what is written where it may not be fails it, though every test of it passes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.filewatch.rules import REPOSITORY
from tests.filewatch.writers import MARK
from tests.unit.test_filewatch import needs_fanotify
from tests.up_process import plain_environment

# `python -c … -m broker` is a broker as far as its command line tells.
BROKER = """
import subprocess, sys
def test_something(tmp_path):
    (tmp_path / "blobs").mkdir()
    code = {code!r}
    subprocess.run([sys.executable, "-c", code, "-m", "broker"], cwd=tmp_path, check=True)
"""
SERVICES = """
import tempfile
def test_something():
    with tempfile.TemporaryFile() as spool:
        spool.write({content!r})
"""
SPOOL = "import tempfile; tempfile.TemporaryFile().write(b'a picture')"
NAMED = "open('spooled', 'wb').write(b'a picture')"
KILLED = (
    "import os, tempfile; f = open('spooled', 'wb', buffering=0); f.write(b'half a picture'); os.kill(os.getpid(), 9)"
)
PLAIN = r"open('blobs/0a', 'wb').write(b'\xff\xd8\xff\xe0 in plain')"
SEALED = "open('blobs/0a', 'wb').write(b'ciphertext')"


def watched_run(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run one test in a session of its own, with its own watch."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_inner.py").write_text(test)
    files = "-c", str(folder / "pytest.ini"), "--basetemp", str(folder / "base"), str(folder / "test_inner.py")
    # -B: its own bytecode beside the test would be a file that nobody allowed.
    command = [sys.executable, "-B", "-m", "pytest", "-p", "tests.filewatch.plugin", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        [*command, *files],
        cwd=REPOSITORY,
        env=plain_environment(**{MARK: f"{os.environ.get(MARK, '')}:inner"}),  # the outer watch has no part in it
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@needs_fanotify
@pytest.mark.parametrize(
    ("test", "told"),
    [
        (BROKER.format(code=SPOOL), "broker wrote "),
        (BROKER.format(code=NAMED), "/spooled ("),
        (BROKER.format(code=KILLED).replace("check=True", "check=False"), "/spooled ("),
        (BROKER.format(code=PLAIN), "/blobs/0a ("),
        (SERVICES.format(content=b"\xff\xd8\xff\xe0 a picture"), "pytest wrote "),
    ],
    ids=["nameless", "named", "killed", "plaintext", "in_process"],
)
def test_a_file_that_may_not_be_written_fails_the_run(tmp_path: Path, test: str, told: str) -> None:
    """The test passes, the run does not, and it says who wrote what."""
    run = watched_run(tmp_path, test)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert "1 passed" in run.stdout
    assert [line for line in run.stdout.splitlines() if line.startswith("FAILED: ") and told in line], run.stdout


@needs_fanotify
def test_a_run_in_many_processes_is_one(tmp_path: Path) -> None:
    """Under xdist the test runs in another process than the one that is watched from."""
    run = watched_run(tmp_path, BROKER.format(code=SPOOL), "-n", "1")
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert "FAILED: broker wrote " in run.stdout


@pytest.mark.parametrize("test", [BROKER.format(code=SEALED), SERVICES.format(content=b"lines of a log")])
def test_what_may_be_written_fails_nothing(tmp_path: Path, test: str) -> None:
    """Ciphertext in a blob store, and what pytest captures; it is said what was watched."""
    run = watched_run(tmp_path, test)
    assert run.returncode == pytest.ExitCode.OK, run.stdout + run.stderr
    assert "watched: " in run.stdout


def test_this_run_is_watched() -> None:
    """Not by a hook that nobody calls: this process bears the name of a watched run."""
    code = f"import os; print(os.environ[{MARK!r}])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

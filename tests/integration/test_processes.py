"""What tests start ends with them, also where nobody is left to stop it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.up_process import REPOSITORY, plain_environment, processes_of

GONE_WITHIN_S = 10.0
GUARDED = """
from broker.settings import Settings
from tests.processes import LetheProcess
unused = ("postgres_dsn", "redis_url", "blobs_url", "keyholder_socket", "receipt_key_file")
settings = Settings(**dict.fromkeys(unused, ""))
socket = folder / "k.sock"
LetheProcess(["broker.keyholder", "--socket", str(socket)], settings, folder / "keyholder.log", {})
while not socket.exists():
    time.sleep(0.01)
"""
KEYHOLDER = """
from tests.keyholder_process import KeyholderProcess
KeyholderProcess(folder / "k.sock")
"""
PEER = """
from tests.contract.test_cog_server import serving
context = serving(folder, "Predictor")
context.__enter__()
"""
STACK = """
from broker.forensics.processes import descendants
from tests.up_process import UpProcess
up = UpProcess(folder / "stack")
while len(descendants(up.running.pid)) < 2:
    time.sleep(0.01)
"""


@pytest.mark.parametrize(
    ("started", "least"),
    [(GUARDED, 2), (KEYHOLDER, 1), (PEER, 2), (STACK, 3)],
    ids=["guarded", "keyholder", "peer", "stack"],
)
def test_a_test_run_that_is_killed_leaves_no_process(tmp_path: Path, started: str, least: int) -> None:
    """Guards, workers, keyholders, peers and whole stacks go with the process that started them for a test."""
    before = f"import time\nfrom pathlib import Path\nfolder = Path({str(tmp_path)!r})"
    script = f"{before}\n{started}\nprint(flush=True)\ntime.sleep(60)"
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, cwd=REPOSITORY, env=plain_environment(), stdout=subprocess.PIPE) as run:
        assert run.stdout
        assert run.stdout.readline() == b"\n"
        assert len(processes_of(tmp_path)) > least
        run.kill()
    deadline_s = time.monotonic() + GONE_WITHIN_S
    while left := processes_of(tmp_path):
        assert time.monotonic() < deadline_s, left
        time.sleep(0.02)

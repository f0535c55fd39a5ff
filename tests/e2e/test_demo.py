"""`lethe demo`, as a newcomer runs it."""

import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from broker.config import DEFAULT_FILE
from broker.sniff import dimensions
from tests.up_process import lethe, plain_environment, processes_of

FROM_UP_TO_RESULT_S = 5.0


def test_the_demo_does_the_main_job_and_shows_every_promise(tmp_path: Path) -> None:
    """One command: upscaled photo saved, metadata gone, receipt verified, custody closed, nothing left running."""
    output, directory = tmp_path / "result.jpg", tmp_path / "stack"
    order = lethe("demo", "--output", str(output), "--directory", str(directory))
    run = subprocess.run(order, env=plain_environment(), capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert dimensions(output.read_bytes()) == (512, 512)
    assert "✗" not in run.stdout
    for promise in (
        "EXIF, GPS, XMP and comment fields is in the result",
        "it is signed with lethe.invalid/receipts+",
        "a receipt that was altered is refused",
        "all 4 copies of the upload are closed",
        "the upload's file is gone from the blob directory, and the keyholder has no key for it",
        "the same look does find the result's file and key",
        "no piece of the photo in any of",
        "the same search does find the job's id",
        "the result's file and key are gone too",
    ):
        assert f"✓ {promise}" in run.stdout or re.search(f"✓ .*{re.escape(promise)}", run.stdout), promise
    took = re.search(r"result saved as .*, ([0-9.]+) s after the stack was up", run.stdout)
    assert took
    assert float(took[1]) < FROM_UP_TO_RESULT_S
    assert not processes_of(directory)


def test_a_provider_outside_gets_pixels_and_nothing_else(tmp_path: Path) -> None:
    """One command: a provider is emulated; what it was sent, what it keeps and what it cost is shown and checked."""
    directory = tmp_path / "stack"
    order = lethe("demo", "--provider", "replicate", "--output", str(tmp_path / "x.jpg"), "--directory", str(directory))
    run = subprocess.run(order, env=plain_environment(), capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "✗" not in run.stdout
    for promise in (
        "the shipped profile minimal would refuse it: the provider's exposure is ephemeral",
        "one picture was sent, 256×256: made anew from the pixels",
        "none of the photo's 14 EXIF, GPS, XMP and comment fields is in it",
        "no user id, no token, no job id is",
        "the same look finds all of it in an order that does carry",
        "as a header and nowhere else; output files were fetched without it (1 ×)",
        "the signed receipt says the same",
        "exposure: ephemeral, as configured",
        "the job cost 0.001250 USD",
        "all 4 copies of the upload are closed",
        "the API key is in no file but the one that it was read from",
    ):
        assert re.search(f"✓ .*{re.escape(promise)}", run.stdout), promise
    for part in ("picture", "output", "record of the order"):
        assert re.search(
            rf"{part} at replicate: the provider documents that it is deleted by then, until 20", run.stdout
        )
    assert not processes_of(directory)
    found = re.search(r"replicate is emulated at http://127\.0\.0\.1:(\d+)", run.stdout)
    assert found
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(found[1])))


def test_a_demo_that_cannot_work_fails(tmp_path: Path) -> None:
    """Without a route for upscale the demo ends with a sentence and exit code 1, and leaves nothing behind."""
    config = tmp_path / "lethe.toml"
    shipped = DEFAULT_FILE.read_text()
    config.write_text(shipped.replace('[[route]]\noperation = "upscale"\ntiers = [{ realesrgan = 1 }]', "", 1))
    order = lethe("demo", "--output", str(tmp_path / "x.jpg"), "--directory", str(tmp_path / "stack"))
    environment = plain_environment(LETHE_CONFIG_FILE=str(config))
    run = subprocess.run(order, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 1
    assert "operation_unavailable" in run.stderr
    assert "Traceback" not in run.stderr
    assert not processes_of(tmp_path / "stack")


def test_a_demo_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C half-way: exit code 1, no process, and the fresh directory is gone with all that was in it."""
    order = lethe("demo", "--output", str(tmp_path / "x.jpg"))
    environment = plain_environment(TMPDIR=str(tmp_path), PYTHONUNBUFFERED="1")
    with subprocess.Popen(order, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        for line in running.stdout:
            if "keyholder holds keys" in line:
                assert list(tmp_path.glob("demo-*"))
                running.send_signal(signal.SIGINT)
                break
        assert running.wait(20) == 1
    assert not list(tmp_path.iterdir())
    assert not processes_of(tmp_path)

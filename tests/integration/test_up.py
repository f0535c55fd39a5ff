"""`lethe up`: one terminal, one Ctrl-C, no process left; and the lines it prints do the main job."""

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from broker.demo.stage import PHOTO
from broker.forensics.processes import descendants
from broker.up import Aside
from tests.up_process import (
    UpProcess,
    lethe,
    lethe_up,
    plain_environment,
    processes_of,
    wait_until_gone,
)

PARTS = ("postgres", "redis-server", "broker.keyholder", "-m broker ", "workers gpu")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    with lethe_up(tmp_path_factory.mktemp("up") / "stack") as process:
        yield process


def curl_lines(output: str) -> list[str]:
    printed = output.split("The main job by hand:", 1)[1]
    return [line for line in printed.splitlines() if re.match(r"[A-Z]+=|curl ", line)]


def test_the_printed_lines_do_the_main_job(up: UpProcess, tmp_path: Path) -> None:
    """Pasted into a shell they upscale a photo, and the receipt they save is valid."""
    lines = curl_lines(up.output)
    assert len(lines) == 9
    script = "set -eu\n" + "\n".join(lines)
    shell = ["bash", "-c", script]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert '"status":"succeeded"' in done.stdout
    assert '"outputs":"destroyed"' in done.stdout
    assert (tmp_path / "result.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    verify = lethe("verify", "receipt.txt", "--keys", "keys.json")
    said = subprocess.run(verify, cwd=tmp_path, env=plain_environment(), capture_output=True, text=True, check=True)
    assert "In Lethe's own hands, and each gone: 4 copies." in said.stdout


def test_submit_does_the_main_job(up: UpProcess, tmp_path: Path) -> None:
    """One command sends, waits, saves, and leaves nothing on the server; the new user's token is shown."""
    photo = PHOTO
    result, receipt = tmp_path / "large.jpg", tmp_path / "receipt.txt"
    order = lethe("submit", str(photo), "-p", "scale=3", "--output", str(result), "--receipt", str(receipt))
    environment = plain_environment(LETHE_URL=up.url)
    said = subprocess.run(order, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "export LETHE_TOKEN=lethe_" in said.stdout
    assert "deleted on the server" in said.stdout
    assert result.read_bytes().startswith(b"\xff\xd8\xff")
    verify = lethe("verify", str(receipt))
    assert subprocess.run(verify, env=environment, capture_output=True, check=False).returncode == 0
    assert not list((up.directory / "blobs").iterdir())


def test_submit_says_why_it_was_refused(up: UpProcess, tmp_path: Path) -> None:
    """A refusal is one sentence with the stable code, and exit code 1."""
    order = lethe("submit", __file__, "--output", str(tmp_path / "x.jpg"), "--url", up.url)
    said = subprocess.run(order, env=plain_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 1
    assert "415 unsupported_image" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_crashed_broker_is_started_again_at_the_same_address(up: UpProcess) -> None:
    """kill -9 of the broker: the terminal says so, and the address that was printed answers again."""
    (pid,) = [pid for pid, command in processes_of(up.directory).items() if " -m broker " in command + " "][-1:]
    os.kill(pid, signal.SIGKILL)
    up.read_until("broker starts again", within_s=10)
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        try:
            if httpx.get(f"{up.url}/health/ready", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(up.output)


def test_ctrl_c_leaves_no_process(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ctrl-C in the terminal ends every part in order, exit code 0, and a second start on the same data works."""
    directory = tmp_path_factory.mktemp("up")  # so short that sockets fit into it, by which every part is known
    for _ in range(2):
        with lethe_up(directory) as process:
            parts = "\n".join(f"{command} " for command in processes_of(directory).values())
            assert all(part in parts for part in PARTS), parts
            everybody = descendants(process.running.pid)
            process.press_ctrl_c()
            process.read_rest()
            assert process.running.wait(15) == 0, process.output
            assert "Traceback" not in process.output
            assert not wait_until_gone(everybody, within_s=0.0)
            assert not processes_of(directory)


def test_ctrl_c_while_it_starts_leaves_no_process(tmp_path: Path) -> None:
    """Whoever changes their mind before it is up is obeyed as well."""
    directory = tmp_path / "stack"
    process = UpProcess(directory)
    try:
        process.read_until("keyholder holds keys")
        process.press_ctrl_c()
        process.read_rest()
        assert process.running.wait(15) == 0, process.output
        assert "stopped before everything was up" in process.output
        assert not processes_of(directory)
    finally:
        process.close()


def test_kill_9_of_the_parent_takes_everybody_along(tmp_path: Path) -> None:
    """SIGKILL of `lethe up` alone: seconds later not one of its processes is left."""
    with lethe_up(tmp_path / "stack") as process:
        everybody = descendants(process.running.pid)
        assert len(everybody) > len(PARTS)
        process.running.kill()
        process.running.wait(5)
        assert not wait_until_gone(everybody, within_s=5.0)
        assert not processes_of(tmp_path / "stack")


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    """Nothing is started when the port that was asked for belongs to somebody else."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        order = lethe("up", "--directory", str(tmp_path / "stack"), "--port", port)
        said = subprocess.run(order, env=plain_environment(), capture_output=True, text=True, timeout=30, check=False)
    assert said.returncode == 1
    assert f"port {port} is taken" in said.stderr
    assert not (tmp_path / "stack").exists()


def test_a_terminal_that_takes_nothing_stops_nobody() -> None:
    """Who restarts the dead goes on while its words wait, and they come out whole and in order afterwards."""
    gate, said = threading.Event(), list[str]()

    def say(words: str) -> None:
        assert gate.wait(10)
        said.append(words)

    aside = Aside()
    for words in ("one", "two"):
        aside.call(say, words)
    assert not aside.finish(within_s=0.05)
    assert said == []
    gate.set()
    assert aside.finish(within_s=10)
    assert said == ["one", "two"]

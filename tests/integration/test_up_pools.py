"""`lethe up` with providers outside: a worker for each pool that lethe.toml leads to, at the start and later."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.demo.stage import PHOTO
from tests.emulators.base import running
from tests.emulators.replicate import SECRET, ReplicateEmulator
from tests.profiles import open_profile
from tests.relay import SECRET_VARIABLE, replicate, route
from tests.up_process import UpProcess, lethe, lethe_up, plain_environment, processes_of

INHOUSE = '[provider.ours]\nadapter = "inhouse"\npool = "gpu"\nmodel = "realesrgan"\nexposure = "local"\n'


@pytest.fixture
def emulator() -> Iterator[ReplicateEmulator]:
    emulated = ReplicateEmulator(run_s=0.1)
    with running(emulated):
        yield emulated


def workers_of(process: UpProcess) -> set[str]:
    commands = (f"{command} " for command in processes_of(process.directory).values())
    return {pool for command in commands for pool in ("gpu", "relay") if f"-m workers {pool} " in command}


def upscaled(process: UpProcess, folder: Path) -> None:
    order = lethe("submit", str(PHOTO), "-p", "scale=2", "--output", str(folder / "large.jpg"))
    environment = plain_environment(LETHE_URL=process.url)
    said = subprocess.run(order, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stdout + said.stderr + process.output


def test_the_workers_are_those_that_lethe_toml_asks_for(emulator: ReplicateEmulator, tmp_path: Path) -> None:
    """
    Variables name lethe.toml and profile; a relay worker runs, no gpu worker, and it alone has the provider's secret.

    It comes back when it is killed. A lethe.toml that is wrong is said with its line, and one that leads to a model of
    ours starts a gpu worker: swapping a provider takes no restart.
    """
    config = tmp_path / "lethe.toml"
    config.write_text(outside := replicate(emulator.url) + route("upscale", "[{ replicate = 1 }]"))
    settings = {
        "LETHE_CONFIG_FILE": str(config),
        "LETHE_PROFILE": open_profile(tmp_path, "ephemeral", max_provider_retention_s="3_600"),
        SECRET_VARIABLE: SECRET,
    }
    with lethe_up(tmp_path / "stack", **settings) as up:
        assert "broker and relay worker are ready" in up.output
        assert workers_of(up) == {"relay"}
        assert programs_with(up, SECRET) == {"workers"}
        upscaled(up, tmp_path)
        assert len(emulator.requests("order")) == 1

        (pid,) = [pid for pid, command in processes_of(up.directory).items() if "-m workers relay" in command][-1:]
        os.kill(pid, signal.SIGKILL)
        up.read_until("relay-worker starts again", within_s=15)

        config.write_text(outside.replace("tiers", "teirs"))
        up.read_until(f"{config}:{outside[: outside.index('tiers')].count(chr(10)) + 1}: ", within_s=15)
        up.read_until("what was configured before stays as it is", within_s=15)

        config.write_text(INHOUSE + route("upscale", "[{ ours = 1 }]"))
        up.read_until("gpu worker is ready", within_s=60)
        assert workers_of(up) == {"gpu", "relay"}
        upscaled(up, tmp_path)
        assert len(emulator.requests("order")) == 1


def programs_with(process: UpProcess, secret: str) -> set[str]:
    """Which of our programs below `lethe up` have the secret in their environment."""
    found: set[str] = set()
    for pid, command in processes_of(process.directory).items():
        words = command.split()
        if pid == process.running.pid or "-m" not in words:
            continue
        if secret.encode() in Path(f"/proc/{pid}/environ").read_bytes():
            # The guard's own "-m" stands in front of that of the program that it guards.
            found.add(words[len(words) - words[::-1].index("-m")])
    return found


def test_a_profile_that_refuses_everybody_is_one_sentence(emulator: ReplicateEmulator, tmp_path: Path) -> None:
    """Options name the file; where its profile lets nobody run anything, up says why and leaves nothing behind."""
    config = tmp_path / "lethe.toml"
    config.write_text(replicate(emulator.url) + route("upscale", "[{ replicate = 1 }]"))
    said = failed_up(tmp_path, "--config", str(config), "--profile", "minimal")
    assert "upscale cannot run: replicate: the provider's exposure is ephemeral, this server allows local" in said


def test_a_secret_that_is_not_there_is_named(emulator: ReplicateEmulator, tmp_path: Path) -> None:
    """The worker that cannot start says which line of lethe.toml to look at, and up repeats it."""
    config = tmp_path / "lethe.toml"
    config.write_text(replicate(emulator.url) + route("upscale", "[{ replicate = 1 }]"))
    said = failed_up(
        tmp_path,
        "--config",
        str(config),
        "--profile",
        open_profile(tmp_path, "ephemeral", max_provider_retention_s="3_600"),
    )
    assert f"lethe cannot start: {config}:5: provider.replicate.secret" in said


def failed_up(folder: Path, *options: str) -> str:
    order = lethe("up", "--directory", str(folder / "stack"), *options)
    said = subprocess.run(order, env=plain_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 1, said.stdout
    assert "Traceback" not in said.stderr
    assert not processes_of(folder / "stack")
    return said.stderr

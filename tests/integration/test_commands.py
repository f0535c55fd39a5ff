"""`lethe keyholder | migrate | broker | work`: the parts one by one, as a machine for each would run them."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from broker.forensics.processes import descendants
from broker.prctl import die_with_parent
from broker.settings import Settings
from broker.store.processes import Process
from tests.stack import Servers, environment_of, running_services
from tests.up_process import alive, lethe, plain_environment

READY_WITHIN_S = 30.0


@contextmanager
def command(*arguments: str, folder: Path, env: dict[str, str]) -> Generator[subprocess.Popen[bytes]]:
    log = folder / f"{'-'.join(arguments[:2])}.log".replace("/", "")
    with log.open("wb") as output:
        running = subprocess.Popen(
            lethe(*arguments),
            env=env,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- it calls prctl and setrlimit, and takes no lock
        )
    try:
        yield running
        everybody = descendants(running.pid)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0, log.read_text()
        assert not alive(everybody)
    finally:
        running.kill()
        running.wait()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + READY_WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def output_of(*arguments: str, env: dict[str, str]) -> str:
    return subprocess.run(lethe(*arguments), env=env, capture_output=True, text=True, timeout=30, check=True).stdout


async def processes(settings: Settings, roles: set[str]) -> list[Process]:
    deadline_s = time.monotonic() + READY_WITHIN_S
    async with running_services(settings, role="worker") as services:
        own = services.lease.process.id
        while True:
            found = [process for process in await services.stores.processes.alive() if process.id != own]
            if {process.role for process in found} == roles:
                return found
            assert time.monotonic() < deadline_s, found


async def test_the_parts_start_one_by_one(settings: Settings, tmp_path: Path) -> None:
    """Keyholder, broker and worker each run guarded under their own command, and end with 0 and nobody left."""
    socket = str(tmp_path / "keyholder.sock")
    settings = msgspec.structs.replace(settings, keyholder_socket=socket)
    env = plain_environment(**environment_of(settings))
    with command("keyholder", "--socket", socket, "--capacity", "1024", folder=tmp_path, env=plain_environment()):
        wait_until(Path(socket).exists)
        with command("broker", folder=tmp_path, env=env), command("work", "gpu", folder=tmp_path, env=env):
            found = await processes(settings, {"broker", "worker"})
            assert any(process.facts.address.startswith("http://127.0.0.1:") for process in found)
            assert any("realesrgan" in process.facts.providers for process in found)


async def test_migrate_says_what_it_did(servers: Servers) -> None:
    """The first run applies and names the migrations, the second finds nothing to do."""
    await servers.databases.run_sql("CREATE DATABASE t_migrate")
    try:
        env = plain_environment(LETHE_POSTGRES_DSN=servers.databases.dsn("t_migrate"))
        for expected in ("applied migration 0001", "Nothing to do"):
            assert expected in await asyncio.to_thread(output_of, "migrate", env=env)
    finally:
        await servers.databases.drop("t_migrate")


@pytest.mark.parametrize("dsn", ["nonsense", "postgresql://lethe@/lethe?host=/nowhere"])
def test_a_database_that_cannot_be_reached_is_one_sentence(dsn: str) -> None:
    """No traceback, and the DSN, which may hold a password, is not repeated."""
    env = plain_environment(LETHE_POSTGRES_DSN=dsn)
    run = subprocess.run(lethe("migrate"), env=env, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("Error: ")
    assert "Traceback" not in run.stderr

"""Child processes of the stack: why they ended, who restarts them, and that none is left."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.children import ChildDied, ChildNotReady, spawn, until
from broker.supervisor import Service, Supervisor

REPOSITORY = Path(__file__).parents[2]

# What `lethe up` does: servers, then services (one of them guarded), until a signal comes.
STACK = """
import asyncio, sys
from pathlib import Path
from broker.embedded import Embedded
from broker.supervisor import Service, Supervisor, stop_on_signals

async def main(directory):
    stopping = stop_on_signals(asyncio.get_running_loop())
    deaf = ("/bin/sh", "-c", "trap '' TERM; echo deaf; sleep 60; sleep 60")
    guarded = (sys.executable, "-m", "broker.guard", *deaf)
    async with Embedded(directory, data_directory=Path(".lethe/data")) as stack:
        async with Supervisor(logs=stack.logs, report=print, stop_within_s=1.0) as supervisor:
            log = stack.logs / "worker.log"
            is_deaf = lambda: log.exists() and "deaf" in log.read_text()
            await supervisor.start(Service(name="keyholder", argv=("/bin/sleep", "60"), env={}, is_ready=lambda: True))
            await supervisor.start(Service(name="worker", argv=guarded, env={}, is_ready=is_deaf))
            pids = [*supervisor.pids.values(), *(child.pid for child in stack.children)]
            print(*pids, flush=True)
            await supervisor.watch(stopping, servers=stack.children)

asyncio.run(main(Path(sys.argv[1])))
"""

Process = subprocess.Popen[str]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Process]:
    argv = [sys.executable, "-c", STACK, str(tmp_path / "stack")]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        yield process
        process.kill()


def family(pids: set[int]) -> set[int]:
    """Return these processes and all that descend from them, zombies aside."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state not in "ZX":
            parents[int(stat.parent.name)] = int(parent)
    found = pids & parents.keys()
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def started(process: Process) -> set[int]:
    assert process.stdout
    pids = {int(word) for word in process.stdout.readline().split()}
    assert len(pids) == 4
    everybody = family(pids)
    assert len(everybody) > len(pids)  # the guard's child and Postgres's own
    return everybody


def test_one_ctrl_c_stops_everything_in_order(up: Process) -> None:
    """SIGINT to the terminal's process group ends the stack within seconds, and a deaf worker's children too."""
    everybody = started(up)
    os.killpg(up.pid, signal.SIGINT)
    assert up.wait(timeout=10) == 0
    assert not family(everybody)


def test_killing_the_parent_leaves_nobody(up: Process) -> None:
    """kill -9 takes servers, services and guarded children along."""
    everybody = started(up)
    up.kill()
    assert asyncio.run(until(lambda: not family(everybody), timeout_s=5)), family(everybody)


def script(*lines: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", "\n".join(lines))


async def test_child_that_dies_says_why(tmp_path: Path) -> None:
    """The error names the process, its exit code and its last log lines."""
    child = spawn(script("echo the reason >&2", "exit 3"), name="broker", env={}, log=tmp_path / "broker.log")
    with pytest.raises(ChildDied, match=r"(?s)broker ended with exit code 3.*the reason"):
        await child.wait_ready(lambda: False, timeout_s=5)


async def test_stubborn_child_is_killed_with_its_group(tmp_path: Path) -> None:
    """Who does not end when asked is killed, and so is what it started."""
    child = spawn(
        script("trap '' TERM QUIT", "sleep 60 &", "echo $!", "wait"), name="stubborn", env={}, log=tmp_path / "log"
    )
    assert await until(lambda: child.last_lines().isdigit(), timeout_s=5)
    await child.stop(grace_s=0.1)
    assert child.returncode == -signal.SIGKILL
    inside = Path(f"/proc/{child.last_lines()}/stat")
    assert await until(lambda: not inside.exists() or " Z " in inside.read_text(), timeout_s=5)


async def test_dead_service_is_restarted_and_all_are_stopped(tmp_path: Path) -> None:
    """A service that dies comes back, with a report; leaving the supervisor stops everything in reverse order."""
    reports: list[str] = []
    stopping = asyncio.Event()
    service = Service(name="worker", argv=script("sleep 60"), env={"PATH": "/usr/bin:/bin"}, is_ready=lambda: True)
    async with Supervisor(logs=tmp_path, report=reports.append) as supervisor, asyncio.TaskGroup() as group:
        child = await supervisor.start(service)
        group.create_task(supervisor.watch(stopping))
        os.kill(child.pid, signal.SIGKILL)
        assert await until(lambda: "worker" in supervisor.pids and supervisor.pids["worker"] != child.pid, timeout_s=5)
        pid = supervisor.pids["worker"]
        stopping.set()
    assert "worker ended with exit code -9" in reports[0]
    assert not Path(f"/proc/{pid}").exists()


async def test_dead_server_ends_the_watch(tmp_path: Path) -> None:
    """Without Postgres or Redis nothing works: the stack stops and says which one died."""
    server = spawn(script("exit 1"), name="postgres", env={}, log=tmp_path / "postgres.log")
    async with Supervisor(logs=tmp_path, report=print) as supervisor:
        with pytest.raises(ChildDied, match="postgres"):
            await supervisor.watch(asyncio.Event(), servers=[server])


async def test_service_that_never_is_ready_is_reported(tmp_path: Path) -> None:
    """Waiting has an end, and nobody is left running after it."""
    service = Service(name="broker", argv=("/bin/sleep", "60"), env={}, is_ready=lambda: False, ready_within_s=0.1)
    async with Supervisor(logs=tmp_path, report=print) as supervisor:
        with pytest.raises(ChildNotReady, match="broker"):
            await supervisor.start(service)
        pid = supervisor.pids["broker"]
    assert not Path(f"/proc/{pid}").exists()


def test_children_are_started_from_the_main_thread(tmp_path: Path) -> None:
    """The kernel ties a child to the thread that forked it: another thread's end would kill it."""
    errors: list[RuntimeError] = []

    def start() -> None:
        try:
            spawn(["/bin/true"], name="child", env={}, log=tmp_path / "log")
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(errors) == 1

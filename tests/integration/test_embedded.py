"""The embedded servers: private, side by side, as root and not, and gone when their parent is."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
from redis.asyncio import Redis

from broker.children import until
from broker.embedded import Embedded, StackInUse

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY / ".lethe/data"

# Starts a stack in a process of its own and says where it is; "stay" waits to be killed.
STACK = """
import asyncio, json, sys
from pathlib import Path
import asyncpg
from redis.asyncio import Redis
from broker.embedded import Embedded

async def main(directory, data, stay):
    async with Embedded(Path(directory), data_directory=Path(data)) as stack:
        connection = await asyncpg.connect(stack.postgres_dsn)
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        await connection.execute("INSERT INTO kept VALUES (1)")
        count = await connection.fetchval("SELECT count(*) FROM kept")
        redis = Redis.from_url(stack.redis_url)
        await redis.ping()
        answer = {"count": count, "pids": [child.pid for child in stack.children]}
        print(json.dumps(answer), flush=True)
        if stay: await asyncio.sleep(60)
        await connection.close(); await redis.aclose()

if len(sys.argv) > 4:  # after the imports: the user need not be able to reach this Python
    import encodings.idna, os, pwd
    user = pwd.getpwnam(sys.argv[4])
    os.setgroups([]); os.setgid(user.pw_gid); os.setuid(user.pw_uid)
asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] == "stay"))
"""

Process = subprocess.Popen[str]
StartStack = Callable[..., Process]


@pytest.fixture
def start_stack() -> Iterator[StartStack]:
    started: list[Process] = []

    def start(directory: Path, then: str, *, data: Path = DATA, user: str = "") -> Process:
        argv = [sys.executable, "-c", STACK, str(directory), str(data), then, *([user] if user else [])]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HOME": "/nonexistent"}
        process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    embedded = Embedded(tmp_path_factory.mktemp("embedded") / "stack", data_directory=DATA)
    asyncio.run(embedded.start())
    yield embedded
    asyncio.run(embedded.stop())


async def redis_answers(url: str, *command: str) -> Any:
    async with Redis.from_url(url, decode_responses=True) as redis:  # pyright: ignore[reportUnknownMemberType]
        return cast("Any", await redis.execute_command(*command))  # pyright: ignore[reportUnknownMemberType]


def answer(process: Process) -> dict[str, Any]:
    assert process.stdout
    line = process.stdout.readline()
    assert line, "the stack did not start"
    return json.loads(line)


def rows_at_the_end(process: Process) -> int:
    count = answer(process)["count"]
    assert process.wait(timeout=10) == 0
    return count


def processes_in(directory: Path) -> list[str]:
    """Name every process that works below the directory."""
    found: list[str] = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.readlink().is_relative_to(directory):
                found.append((link.parent / "comm").read_text().strip())
        except OSError:
            continue
    return found


async def test_both_answer_and_listen_on_no_port(stack: Embedded) -> None:
    """Postgres and Redis work over unix sockets, and neither has an address in the network."""
    connection = await asyncpg.connect(stack.postgres_dsn)
    try:
        assert await connection.fetchval("SHOW listen_addresses") == ""
        assert await connection.fetchval("SHOW fsync") == "on"
        assert await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    finally:
        await connection.close()
    for setting, value in {"port": "0", "save": "", "appendonly": "no"}.items():
        assert await redis_answers(stack.redis_url, "CONFIG", "GET", setting) == [setting, value]


async def test_sockets_are_for_their_owner(stack: Embedded) -> None:
    """Nobody else may enter the folders or open the sockets."""
    for path in (stack.run_directory, stack.run_directory / "redis.sock", stack.run_directory.parent / "postgres"):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_other_users_are_refused(stack: Embedded) -> None:
    """The database is open to the user who made it: not as superuser, and not to the server's own user."""
    host = str(stack.run_directory.parent / "postgres")
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asyncpg.connect(host=host, user="postgres", database="postgres")
    if os.geteuid() == 0:
        program = (
            "import os, asyncio, asyncpg\n"
            f"os.chdir({host!r})\n"
            "nobody = __import__('pwd').getpwnam('nobody')\n"
            "os.setgroups([]); os.setgid(nobody.pw_gid); os.setuid(nobody.pw_uid)\n"
            "try: asyncio.run(asyncpg.connect(host='/proc/self/cwd', user='lethe', database='lethe'))\n"
            "except asyncpg.InvalidAuthorizationSpecificationError as error: print('refused')\n"
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
        assert await process.communicate() == (b"refused\n", None)


async def test_errors_leave_no_content_in_the_log(stack: Embedded) -> None:
    """What a statement or a parameter held is not logged, even where Postgres quotes it in its error."""
    connection = await asyncpg.connect(stack.postgres_dsn)
    try:
        with pytest.raises(asyncpg.DataError):
            await connection.execute("SELECT 'canary-in-a-statement'::uuid")
        with pytest.raises(asyncpg.DataError):
            await connection.fetchval("SELECT ($1::text)::int", "canary-in-a-parameter")
    finally:
        await connection.close()
    assert "canary" not in (stack.logs / "postgres.log").read_text()


async def test_two_side_by_side(stack: Embedded, tmp_path: Path) -> None:
    """A second stack beside the first shares nothing with it."""
    async with Embedded(tmp_path / "other", data_directory=DATA) as other:
        await redis_answers(other.redis_url, "SET", "key", "theirs", "EX", "60")
        assert await redis_answers(stack.redis_url, "GET", "key") is None
        connection = await asyncpg.connect(other.postgres_dsn)
        await connection.execute("CREATE TABLE theirs ()")
        await connection.close()
        connection = await asyncpg.connect(stack.postgres_dsn)
        assert await connection.fetchval("SELECT to_regclass('theirs')") is None
        await connection.close()


@pytest.mark.parametrize("name", ["x" * 120, "with space & ünïcode"])
async def test_long_and_odd_paths(tmp_path: Path, name: str) -> None:
    """A directory whose sockets would not fit 107 bytes, or need quoting in a URL, works through a short name."""
    async with Embedded(tmp_path / name, data_directory=DATA) as embedded:
        connection = await asyncpg.connect(embedded.postgres_dsn)
        await connection.close()
        assert await redis_answers(embedded.redis_url, "PING") is True
        short = embedded.run_directory.parent
        assert short.is_symlink()
    assert not short.parent.exists()


async def test_directory_in_use_is_refused(stack: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stacks never run on one directory; the first goes on undisturbed."""
    monkeypatch.setattr("broker.embedded.LOCK_WITHIN_S", 0.1)
    with pytest.raises(StackInUse):
        await Embedded(stack.logs.parent, data_directory=DATA).start()
    assert await redis_answers(stack.redis_url, "PING") is True


def test_parent_killed_and_started_again(start_stack: StartStack, tmp_path: Path) -> None:
    """kill -9 of the parent leaves no process; the next start on the directory has every committed row."""
    directory = tmp_path / "stack"
    first = start_stack(directory, "stay")
    assert answer(first)["count"] == 1
    first.kill()
    second = start_stack(directory, "stay")  # at once: stale sockets, pid file and dying servers are its to cope with
    assert answer(second)["count"] == 2
    second.kill()
    assert asyncio.run(until(lambda: not processes_in(directory), timeout_s=5)), processes_in(directory)
    assert rows_at_the_end(start_stack(directory, "end")) == 3


def test_stopping_leaves_nothing(start_stack: StartStack, tmp_path: Path) -> None:
    """An orderly end leaves no process, no socket and no pid file."""
    directory = tmp_path / "stack"
    process = start_stack(directory, "end")
    assert rows_at_the_end(process) == 1
    assert processes_in(directory) == []
    assert [path for path in directory.rglob("*") if path.is_socket() or path.name == "postmaster.pid"] == []


def test_half_made_database_is_made_anew(start_stack: StartStack, tmp_path: Path) -> None:
    """A first start that was cut short does not spoil the directory."""
    half = tmp_path / "stack/postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    assert rows_at_the_end(start_stack(tmp_path / "stack", "end")) == 1


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_parents_are_not_opened_up(start_stack: StartStack, tmp_path: Path, mode: int) -> None:
    """A closed parent directory stays closed, and the stack below it works all the same."""
    parent = tmp_path / "parent"
    parent.mkdir(mode=mode)
    assert rows_at_the_end(start_stack(parent / "stack", "end")) == 1
    assert parent.stat().st_mode & 0o777 == mode


def test_ordinary_user(start_stack: StartStack) -> None:
    """Nothing needs root: proven as `nobody` where the suite itself runs as root."""
    user = "nobody" if os.geteuid() == 0 else Path("/proc/self").owner()
    directory = Path(tempfile.mkdtemp(prefix="lethe-test-", dir="/tmp"))
    try:
        for part in ("postgres", "bin"):
            shutil.copytree(DATA / part, directory / "data" / part)
        shutil.chown(directory, user)
        process = start_stack(
            directory / "stack", "end", data=directory / "data", user=user if os.geteuid() == 0 else ""
        )
        assert rows_at_the_end(process) == 1
        assert (directory / "stack/postgres").owner() == user
    finally:
        shutil.rmtree(directory)

"""The stack that is measured: embedded servers, a keyholder, and Lethe's own processes, started and stopped at will."""

import shutil
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Set
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
from arq.connections import ArqRedis

from bench.bare.parts import WHOLE, Part, environment_without, is_guarded, module_arguments
from broker.children import Child, spawn
from broker.embedded import Embedded
from broker.migrate import migrate
from broker.queue import connect
from broker.settings import Settings, inherited_environment
from broker.store.database import Database
from broker.store.processes import Facts, Process, ProcessStore
from broker.store.users import UserStore

HERE = Path(__file__).parent
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 15.0


class Running:
    """One process: one of ours behind its guard, or a program that has none."""

    def __init__(self, child: Child, *, pid: int = 0) -> None:
        self._child = child
        self._pid = pid

    @property
    def pid(self) -> int:
        """The process itself; the guard of one of ours is its parent."""
        return self._pid or children_of(self._child.pid)[0]

    @property
    def top_pid(self) -> int:
        """The guard of one of ours, where it has one: whatever belongs to the process is this or below it."""
        return self._child.pid

    async def until(self, is_ready: Callable[[], bool | Awaitable[bool]], *, within_s: float = READY_WITHIN_S) -> None:
        """Wait until it says so; raise with the last lines of its log when it ends before."""
        await self._child.wait_ready(is_ready, timeout_s=within_s)


class Stack:
    """Servers that live as long as the block that opened them; brokers and workers come and go inside it."""

    def __init__(
        self, embedded: Embedded, settings: Settings, database: Database, redis: ArqRedis, keyholder: Child
    ) -> None:
        self.embedded = embedded
        self.settings = settings
        self.database = database
        self.redis = redis
        self.keyholder = keyholder
        self.processes = ProcessStore(database)
        self.users = UserStore(database)

    @property
    def port(self) -> int:
        """Where a broker listens."""
        return int(self.settings.listen.rpartition(":")[2])

    async def tokens(self, count: int) -> list[str]:
        """Mint users and return their tokens: one user's jobs of the last minute are counted at every admission."""
        return [(await self.users.mint()).token for _ in range(count)]

    async def forget(self) -> None:
        """Empty what earlier rounds have left, so that every round meets the same tables."""
        async with self.database.connection() as connection, connection.transaction():
            # Rows of open copies cannot be deleted, and that is as it should be everywhere else.
            await connection.execute("ALTER TABLE custody DISABLE TRIGGER USER")
            await connection.execute("TRUNCATE jobs, custody, outputs, receipts CASCADE")
            await connection.execute("ALTER TABLE custody ENABLE TRIGGER USER")
        await self.redis.execute_command("FLUSHDB")  # pyright: ignore[reportUnknownMemberType]
        self.drop_blobs()

    def drop_blobs(self) -> None:
        """Delete what lies in the blob store, whoever may still know of it."""
        for blob in self._blobs.glob("*"):  # no directory before the first
            blob.unlink(missing_ok=True)

    @property
    def folder(self) -> Path:
        """Where everything of it lies."""
        return Path(self.settings.receipt_key_file).parent.absolute()

    @property
    def _blobs(self) -> Path:
        return Path(self.settings.blobs_url.removeprefix("file://"))

    @asynccontextmanager
    async def broker(self, without: Set[Part] = WHOLE, /, **changed: object) -> AsyncGenerator[Running]:
        """Run one broker process, the product's own unless it is to be without something."""
        url = f"http://127.0.0.1:{self.port}/health/live"
        arguments = module_arguments("broker", without=without)
        async with self._process("broker", arguments, lambda: answers(url), changed, without=without) as running:
            yield running

    @asynccontextmanager
    async def worker(self, pool: str, without: Set[Part] = WHOLE, /, **changed: object) -> AsyncGenerator[Running]:
        """Run one worker process of a pool, warm and known to the broker; see `broker`."""
        arguments = module_arguments("worker", pool, without=without)
        async with self._process(pool, arguments, lambda: True, changed, without=without) as running:
            await self._until_alive(running, pool)
            yield running

    @asynccontextmanager
    async def module(self, name: str, *arguments: str) -> AsyncGenerator[Running]:
        """Run a module of the measurements as a guarded process."""
        async with self._process(name, ["-m", name, *arguments], lambda: True, {}) as running:
            yield running

    @asynccontextmanager
    async def pretended_worker(self, pool: str, *providers: str) -> AsyncGenerator[None]:
        """Say that a worker lives, so that jobs are accepted, where nobody is to run them."""
        facts = Facts(pool=pool, providers=providers)
        process = Process(id=uuid4(), role="worker", facts=facts)
        await self.processes.register(process, lease_s=3_600)
        try:
            yield
        finally:
            await self.processes.leave(process.id)

    @asynccontextmanager
    async def program(self, name: str, command: list[str], **environment: str) -> AsyncGenerator[Running]:
        """Run a program that is not ours: without a guard, and without our care for what is freed, which costs time."""
        known = {key: value for key, value in inherited_environment().items() if key in {"PATH", "HOME", "LANG"}}
        log = self.embedded.logs / f"{name}.log"
        child = spawn(command, name=name, env={**known, **environment}, log=log, cwd=HERE.parent)
        try:
            yield Running(child, pid=child.pid)
        finally:
            await child.stop(grace_s=STOP_WITHIN_S)

    @asynccontextmanager
    async def _process(
        self,
        name: str,
        arguments: list[str],
        is_ready: Callable[[], bool],
        changed: dict[str, object],
        *,
        without: Set[Part] = WHOLE,
    ) -> AsyncGenerator[Running]:
        settings = msgspec.structs.replace(self.settings, **changed)
        command = [sys.executable, *arguments]
        child = spawn(
            [sys.executable, "-m", "broker.guard", *command] if is_guarded(without) else command,
            name=name,
            env={**environment_without(inherited_environment(), without), **environment_of(settings)},
            log=self.embedded.logs / f"{name}.log",
        )
        try:
            await child.wait_ready(is_ready, timeout_s=READY_WITHIN_S)
            yield Running(child, pid=0 if is_guarded(without) else child.pid)
        finally:
            await child.stop(grace_s=STOP_WITHIN_S)

    async def _until_alive(self, running: Running, pool: str) -> None:
        async def is_known() -> bool:
            return any(process.facts.pool == pool for process in await self.processes.alive())

        await running.until(is_known)


@asynccontextmanager
async def open_stack(directory: Path, *, data_directory: Path) -> AsyncGenerator[Stack]:
    """Start Postgres, Redis and a keyholder in an empty directory, and remove it all at the end."""
    async with AsyncExitStack() as held:
        held.callback(shutil.rmtree, directory, ignore_errors=True)
        embedded = await held.enter_async_context(Embedded(directory, data_directory=data_directory))
        await migrate(embedded.postgres_dsn)
        settings = _settings(embedded, directory, data_directory)
        keyholder = spawn(
            [sys.executable, "-m", "broker.keyholder", "--socket", settings.keyholder_socket],
            name="keyholder",
            env=inherited_environment(),
            log=embedded.logs / "keyholder.log",
        )
        held.push_async_callback(keyholder.stop)
        await keyholder.wait_ready(lambda: _listens(settings.keyholder_socket), timeout_s=READY_WITHIN_S)
        database = Database(settings.postgres_dsn, connections=4)
        await database.open()
        held.push_async_callback(database.aclose)
        redis = connect(settings.redis_url)
        held.push_async_callback(redis.aclose, close_connection_pool=True)
        yield Stack(embedded, settings, database, redis, keyholder)


def environment_of(settings: Settings) -> dict[str, str]:
    """Settings as the variables that a child process reads."""
    encoded: dict[str, object] = msgspec.to_builtins(settings)
    return {name: str(value) for name, value in encoded.items() if value is not None}


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and not yet buried."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a server answers well."""
    try:
        return httpx.get(url, timeout=1.0).is_success
    except httpx.HTTPError:
        return False


def _settings(embedded: Embedded, directory: Path, data_directory: Path) -> Settings:
    return Settings(
        postgres_dsn=embedded.postgres_dsn,
        redis_url=embedded.redis_url,
        blobs_url=f"file://{directory.absolute()}/blobs",
        keyholder_socket=str(embedded.run_directory / "keyholder.sock"),
        receipt_key_file=str(directory / "receipt.key"),
        profile=str(HERE / "profile.toml"),
        config_file=str(HERE / "lethe.toml"),
        data_dir=str(data_directory.absolute()),
        listen=f"127.0.0.1:{free_port()}",
        operator_listen="127.0.0.1:0",
    )


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0

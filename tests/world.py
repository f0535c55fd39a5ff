"""
A whole deployment whose every process can die alone (servers, keyholder, brokers, workers), and is started again.

Unlike `lethe up` it outlives its Postgres and its Redis, as a deployment does where others run these. Redis keeps an
append-only file, which Lethe has to bear: whatever persists, nothing of it may open an upload.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from broker.children import Child, spawn
from broker.embedded_postgres import ROLE, Postgres
from broker.forensics.processes import descendants
from broker.migrate import migrate
from broker.settings import Settings
from broker.wheels import postgres_programs, redis_server
from tests.peers import free_port
from tests.relay import settings_with
from tests.stack import DATA, environment_of
from tests.third_parties import SECRETS
from tests.up_process import alive, plain_environment

ROOT = Path(__file__).parents[1]
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 8.0
LOOK_AGAIN_S = 0.05
LEASE_S = 3.0
"""The shortest that a process accepts."""
REDIS = b"""\
port 0
unixsocket redis.sock
unixsocketperm 600
appendonly yes
daemonize no
loglevel warning
"""
SERVERS = ("postgres", "redis")


class Part:
    """One process of a world, or one server with its children."""

    def __init__(self, start: Callable[[], Child], is_ready: Callable[[Child], bool]) -> None:
        self._start = start
        self._is_ready = is_ready
        self.start()

    def start(self) -> None:
        self.child = self._start()

    @property
    def has_ended(self) -> bool:
        return self.child.returncode is not None

    @property
    def pids(self) -> set[int]:
        """Itself and all that it has started."""
        return descendants(self.child.pid) | {self.child.pid}

    async def wait_ready(self) -> None:
        """Wait until it works, also when it has to be started again meanwhile."""

        async with asyncio.timeout(READY_WITHIN_S):
            while self.has_ended or not self._is_ready(self.child):  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(LOOK_AGAIN_S)


class World:
    """Everything that Lethe consists of, in one folder; with `hooked`, the folder of orders, it has crash points."""

    def __init__(self, folder: Path, config: str, *, brokers: int = 1, hooked: Path | None = None) -> None:
        self.folder = folder
        self.parts: dict[str, Part] = {}
        self.restarts = 0
        self._ports = [free_port() for _ in range(brokers)]
        self._hooked = hooked
        self._starts = 0
        self._is_watched = asyncio.Event()
        self._environment = plain_environment(**SECRETS, LETHE_CRASH_FOLDER=str(hooked or ""))
        self.urls = [f"http://127.0.0.1:{port}" for port in self._ports]
        self.settings = _settings(folder, config, public_url=self.urls[0])

    async def start(self) -> None:
        """Start everything; data that lies in the folder is gone on with."""
        await self._start_servers()
        self.parts["keyholder"] = Part(
            lambda: self._spawn("keyholder", ["broker.keyholder", "--socket", self.settings.keyholder_socket]),
            lambda _: _listens(self.settings.keyholder_socket),
        )
        await self.parts["keyholder"].wait_ready()
        for n, port in enumerate(self._ports):
            self.parts[f"broker{n or ''}"] = self._broker(port)
        for pool in ("gpu", "relay"):
            self.parts[pool] = self._worker(pool)
        self._is_watched.set()

    async def ready(self) -> None:
        """Wait until every part works."""
        for part in self.parts.values():
            await part.wait_ready()

    async def watch(self) -> None:
        """Start again what has ended, until cancelled."""
        while True:
            await self._is_watched.wait()
            for part in self.parts.values():
                if part.has_ended:
                    part.child.kill()
                    part.start()
                    self.restarts += 1
            await asyncio.sleep(LOOK_AGAIN_S)

    async def stop(self) -> None:
        """Stop everything in order, Lethe first."""
        self._is_watched.clear()
        for part in reversed(self.parts.values()):
            await part.child.stop(signum=signal.SIGINT, grace_s=STOP_WITHIN_S)
        self.parts.clear()

    def freeze(self) -> None:
        """Stop the world: nothing of it does anything any more."""
        self._is_watched.clear()
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    async def kill(self) -> None:
        """Kill -9 of everything at once, as a power cut does."""
        self._is_watched.clear()
        pids = self.pids
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for part in self.parts.values():
            part.child.kill()
        self.parts.clear()
        async with asyncio.timeout(STOP_WITHIN_S):
            while alive(pids):  # noqa: ASYNC110 - what is waited for happens in other processes
                await asyncio.sleep(LOOK_AGAIN_S)

    @property
    def pids(self) -> set[int]:
        """Every process of this world."""
        return {pid for part in self.parts.values() for pid in part.pids}

    @property
    def lethe_pids(self) -> set[int]:
        """Every process of Lethe's own: all but the servers."""
        return {pid for name, part in self.parts.items() if name not in SERVERS for pid in part.pids}

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    async def _start_servers(self) -> None:
        self.parts["redis"] = Part(self._redis, lambda _: _listens(self.settings.redis_url.removeprefix("unix://")))
        is_new = not (self.folder / "postgres").exists()
        log = self.folder / "logs" / "postgres.log"
        server = Postgres(self.folder / "postgres", programs=postgres_programs(DATA), log=log)
        self.parts["postgres"] = Part(lambda: server.start(pass_fds=()), server.is_ready)
        await self.parts["postgres"].wait_ready()
        if is_new:
            await migrate(self.settings.postgres_dsn)

    def _redis(self) -> Child:
        (self.folder / "redis").mkdir(mode=0o700, exist_ok=True)
        (self.folder / "redis" / "redis.sock").unlink(missing_ok=True)
        return spawn(
            [redis_server(DATA), "-"],
            name="redis",
            env={"LC_ALL": "C"},
            log=self.folder / "logs" / "redis.log",
            cwd=self.folder / "redis",
            stdin=REDIS,
        )

    def _broker(self, port: int) -> Part:
        return Part(
            lambda: self._spawn("broker", ["broker"], LETHE_LISTEN=f"127.0.0.1:{port}"),
            lambda child: b"broker_started" in child.log.read_bytes(),
        )

    def _worker(self, pool: str) -> Part:
        return Part(
            lambda: self._spawn(pool, ["workers", pool]), lambda child: b"worker_started" in child.log.read_bytes()
        )

    def _spawn(self, name: str, arguments: list[str], **changed: str) -> Child:
        self._starts += 1
        hooked = ["tests.crash.process", name]
        return spawn(
            [sys.executable, "-m", "broker.guard", sys.executable, "-m", *(hooked if self._hooked else arguments)],
            name=name,
            env={**self._environment, **environment_of(self.settings), **changed},
            log=self.folder / "logs" / f"{name}-{self._starts}.log",
            cwd=ROOT,
        )


@asynccontextmanager
async def running_world(world: World) -> AsyncGenerator[World]:
    """Start a world, keep it going inside the block, stop it."""
    watching = asyncio.create_task(world.watch())
    try:
        await world.start()
        await world.ready()
        yield world
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await world.stop()


def _settings(folder: Path, config: str, *, public_url: str) -> Settings:
    plain = Settings(
        postgres_dsn=f"postgresql://{ROLE}@/{ROLE}?host={folder}/postgres",
        redis_url=f"unix://{folder}/redis/redis.sock",
        blobs_url=f"file://{folder}/blobs",
        keyholder_socket=f"{folder}/keyholder.sock",
        receipt_key_file=str(folder / "receipt.key"),
        receipt_name="lethe.test/receipts",
        data_dir=str(DATA),
        operator_listen="127.0.0.1:0",
        public_url=public_url,
        lease_s=LEASE_S,
        rescue_every_s=0.2,
        upload_idle_s=2.0,
        upload_within_s=20.0,
    )
    return settings_with(plain, folder, config)


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0

"""The one-machine stack's servers: Postgres and Redis in one directory, on unix sockets, gone when we are gone."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from broker.children import Child, StackError, spawn, until
from broker.embedded_postgres import ROLE, SOCKET_NAME, Postgres
from broker.wheels import postgres_programs, redis_server

_OLDEST_REDIS: Final = (6, 2)
# sun_path has 108 bytes with its NUL; 40 are left for the names of sockets below the directory.
_LONGEST_DIRECTORY_BYTES: Final = 67
_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9/._-]+")
_START_WITHIN_S: Final = 30.0
LOCK_WITHIN_S: Final = 5.0

# On stdin: nothing is written that could be stale, and nothing is kept when Redis ends.
_REDIS_CONFIGURATION: Final = b"""\
port 0
unixsocket redis.sock
unixsocketperm 600
save ""
appendonly no
daemonize no
loglevel warning
"""


class StackInUse(StackError):
    """Another stack runs on this directory."""


class Embedded:
    """Postgres and Redis for one machine; `async with`, or start() and stop() from the main thread.

    After start(): `postgres_dsn`, `redis_url`, `run_directory` (0700, short enough for other unix sockets), `children`.
    """

    def __init__(self, directory: Path, *, data_directory: Path) -> None:
        self._directory = directory.absolute()
        self._data_directory = data_directory.absolute()
        self._lock_fd = -1
        self._short: Path | None = None
        self.children: list[Child] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def postgres_dsn(self) -> str:
        """Peer authentication: the DSN holds no secret and works for the user who created the database alone."""
        return f"postgresql://{ROLE}@/{ROLE}?host={self._base}/postgres"

    @property
    def redis_url(self) -> str:
        return f"unix://{self.run_directory}/redis.sock"

    @property
    def run_directory(self) -> Path:
        return self._base / "run"

    @property
    def logs(self) -> Path:
        return self._directory / "logs"

    async def start(self) -> None:
        """Start both and wait until they answer; whatever fails, nothing is left running."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._take_lock()
        try:
            self._shorten()
            await self._start_servers()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop both; what was committed stays. May be called twice."""
        children, self.children = self.children, []
        try:
            # SIGINT is Postgres's fast shutdown: it waits for nobody. Redis takes it as a plain stop.
            await asyncio.gather(*(child.stop(signum=signal.SIGINT) for child in children))
        finally:
            for child in children:
                child.kill()
            self._release()

    async def _start_servers(self) -> None:
        run = self._directory / "run"
        run.mkdir(mode=0o700, exist_ok=True)
        (run / "redis.sock").unlink(missing_ok=True)
        # Servers inherit the lock: it is free only when the last of them is gone, however we ended.
        held = (self._lock_fd,)
        redis = spawn(
            [_redis_program(self._data_directory), "-"],
            name="redis",
            env={"LC_ALL": "C"},
            log=self.logs / "redis.log",
            cwd=run,
            stdin=_REDIS_CONFIGURATION,
            pass_fds=held,
        )
        self.children.append(redis)
        programs = postgres_programs(self._data_directory)
        server = Postgres(self._directory / "postgres", programs=programs, log=self.logs / "postgres.log")
        postgres = server.start(pass_fds=held)
        self.children.append(postgres)
        await redis.wait_ready(lambda: _answers_ping(self.run_directory / "redis.sock"), timeout_s=_START_WITHIN_S)
        await postgres.wait_ready(lambda: server.is_ready(postgres), timeout_s=_START_WITHIN_S)

    async def _take_lock(self) -> None:
        """Wait a little: the servers of a stack that was killed need a moment to notice."""
        self._lock_fd = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not await until(lambda: _try_lock(self._lock_fd), timeout_s=LOCK_WITHIN_S):
            self._release()
            raise StackInUse(f"another stack runs on {self._directory}")

    def _release(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
        if self._short:
            shutil.rmtree(self._short, ignore_errors=True)
            self._short = None

    def _shorten(self) -> None:
        """Give a directory that is too long for a socket path, or would need quoting in a URL, a second, short name."""
        path = str(self._directory)
        longest = f"{path}/postgres/{SOCKET_NAME}"
        if len(path.encode()) <= _LONGEST_DIRECTORY_BYTES and _PLAIN_PATH.fullmatch(longest):
            return
        # Not TMPDIR, which may be long itself. The same name at each start, so that a killed stack leaves no trail.
        digest = hashlib.sha256(path.encode()).hexdigest()[:16]
        short = Path(f"/tmp/lethe-{os.geteuid()}-{digest}")  # noqa: S108 -- used only when it is ours alone
        short.mkdir(mode=0o700, exist_ok=True)
        found = short.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise StackError(f"{short} is not ours alone; remove it, or give the stack a shorter directory")
        self._short = short
        (short / "s").unlink(missing_ok=True)
        (short / "s").symlink_to(self._directory)

    @property
    def _base(self) -> Path:
        return self._short / "s" if self._short else self._directory


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _redis_program(data_directory: Path) -> Path:
    """Return the redis-server on PATH when it is new enough, else the one from the wheel."""
    found = shutil.which("redis-server")
    if found:
        answer = subprocess.run([found, "--version"], check=False, capture_output=True, text=True)  # noqa: S603 -- the operator's own
        version = re.search(r"v=(\d+)\.(\d+)", answer.stdout)
        if version and (int(version[1]), int(version[2])) >= _OLDEST_REDIS:
            return Path(found)
    return redis_server(data_directory)


def _answers_ping(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        connection.connect(str(path))
        connection.sendall(b"PING\r\n")
        return connection.recv(7) == b"+PONG\r\n"
    return False

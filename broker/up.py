"""Everything on one machine: servers, keyholder, broker and workers as children, and gone when we are gone."""

import asyncio
import queue
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from broker.children import StackError, until
from broker.client import Client, ServerUnreachable
from broker.config import load_config
from broker.crew import READY_WITHIN_S, Crew, guarded, side_by_side
from broker.embedded import Embedded
from broker.errors import Unavailable
from broker.guard import GUARD_FD_VARIABLE, hardened
from broker.migrate import migrate
from broker.pools import closed, pools, secret_variables
from broker.routes import Config
from broker.settings import Settings, inherited_environment, load_settings
from broker.store.keys import Keyholder
from broker.supervisor import Service, Supervisor, stop_on_signals
from policies.registry import load_profile

DEFAULT_DIRECTORY: Final = Path(".lethe/stack")
_HOST: Final = "127.0.0.1"
# The keyholder needs no setting: what it is not given it cannot leak.
_KEYHOLDER_NEEDS: Final = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "HOME")

T = TypeVar("T")
Report = Callable[[str], None]

_SAY_WITHIN_S: Final = 1.0


class PortTaken(StackError):
    """Something else listens where the broker was told to."""


class Stopped(Exception):
    """A signal asked for the end before the work was done."""


class Stack:
    """
    The embedded stack; inside `async with` it is ready for jobs, after it no process is left.

    `given` stands for variables of the environment, and is preferred to it.
    """

    def __init__(
        self, directory: Path, *, report: Report, port: int = 0, given: Mapping[str, str] | None = None
    ) -> None:
        self._directory = directory.absolute()
        self._report = report
        self._environment = {**inherited_environment(), **(given or {})}
        self._embedded = Embedded(self._directory, data_directory=data_directory(self._environment))
        self._exits = AsyncExitStack()
        self._supervisor: Supervisor | None = None
        self._crew: Crew | None = None
        free_port, self._operator_port = _two_free_ports()
        self._port = port or free_port
        self.settings: Settings

    async def __aenter__(self) -> Self:
        if not _is_free(self._port):
            raise PortTaken(f"port {self._port} is taken; choose another with --port, or none for any free one")
        self._read_settings()
        async with AsyncExitStack() as exits:
            await exits.enter_async_context(self._embedded)
            self._read_settings()  # its sockets have their names now
            supervisor = Supervisor(logs=self._embedded.logs, report=self._report)
            self._supervisor = await exits.enter_async_context(supervisor)
            await self._start(supervisor)
            self._exits = exits.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.aclose()

    @property
    def url(self) -> str:
        """Where the client API answers."""
        return f"http://{_HOST}:{self._port}"

    @property
    def operator_url(self) -> str:
        """Where metrics and operator routes answer."""
        return f"http://{_HOST}:{self._operator_port}"

    @property
    def directory(self) -> Path:
        """Where everything that this stack writes lies."""
        return self._directory

    @property
    def pids(self) -> dict[str, int]:
        """Which process each part is at this moment."""
        assert self._supervisor is not None
        return self._supervisor.pids | {child.name: child.pid for child in self._embedded.children}

    async def watch(self, stopping: asyncio.Event) -> None:
        """Restart what dies, and start workers for pools that lethe.toml leads to by then, until `stopping` is set."""
        assert self._supervisor is not None
        assert self._crew is not None
        following = asyncio.create_task(self._crew.follow())
        try:
            await self._supervisor.watch(stopping, servers=self._embedded.children)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def _read_settings(self) -> None:
        self.settings = load_settings({**self._environment, **self._settings_of_children()})
        load_profile(self.settings.profile)
        load_config(self.settings.config_path)

    async def _start(self, supervisor: Supervisor) -> None:
        self._report("Postgres and Redis answer")
        if applied := await migrate(self.settings.postgres_dsn):
            self._report(f"database brought to version {applied[-1]}")
        env = hardened({**self._environment, **self._settings_of_children()})
        await supervisor.start(self._keyholder(env))
        self._report("keyholder holds keys")
        self._crew = Crew(supervisor, self.settings, env=env, report=self._report)
        await self._start_crew(supervisor, self._crew, env)

    async def _start_crew(self, supervisor: Supervisor, crew: Crew, env: dict[str, str]) -> None:
        config = crew.config
        expected = self._open_operations(config)
        # Providers' secrets are the workers' business; and they start side by side: neither needs the other to start.
        broker_env = {name: value for name, value in env.items() if name not in secret_variables(config)}
        broker = guarded("broker", "-m", "broker", env=broker_env, is_ready=self._broker_answers)
        await side_by_side(supervisor.start(broker), crew.start())
        await self._see_operations(expected)
        *others, last = ["broker", *(f"{pool} worker" for pool in pools(config))]
        self._report(f"{', '.join(others)} and {last} are ready")

    def _open_operations(self, config: Config) -> set[str]:
        """Say which operations nobody can ever run here; StackError when that is all of them."""
        shut = closed(config, load_profile(self.settings.profile))
        expected = set(config.operations) - shut.keys()
        whys = [f"{operation} cannot run: {why}" for operation, why in shut.items()]
        if not expected:
            raise StackError("\n".join(whys) or "no operation can run: lethe.toml has no route")
        for why in whys:
            self._report(why)
        return expected

    def _keyholder(self, env: dict[str, str]) -> Service:
        path = self.settings.keyholder_socket
        return Service(
            name="keyholder",
            argv=(sys.executable, "-m", "broker.keyholder", "--socket", path),
            env=hardened({name: env[name] for name in _KEYHOLDER_NEEDS if name in env}),
            is_ready=lambda: _keyholder_answers(path),
        )

    def _settings_of_children(self) -> dict[str, str]:
        self._environment.pop(GUARD_FD_VARIABLE, None)
        return {
            "LETHE_POSTGRES_DSN": self._embedded.postgres_dsn,
            "LETHE_REDIS_URL": self._embedded.redis_url,
            "LETHE_BLOBS_URL": (self._directory / "blobs").as_uri(),
            "LETHE_KEYHOLDER_SOCKET": str(self._embedded.run_directory / "keyholder.sock"),
            "LETHE_RECEIPT_KEY_FILE": str(self._directory / "receipts.key"),
            "LETHE_DATA_DIR": str(data_directory(self._environment)),
            "LETHE_LISTEN": f"{_HOST}:{self._port}",
            "LETHE_OPERATOR_LISTEN": f"{_HOST}:{self._operator_port}",
        }

    async def _broker_answers(self) -> bool:
        async with Client(self.url) as client:
            try:
                return await client.is_ready()
            except ServerUnreachable:
                return False

    async def _see_operations(self, expected: set[str]) -> None:
        # The broker looks at the workers once a second at most: wait until it has seen ours.
        async def has_operations() -> bool:
            return expected <= set(await client.operations())

        async with Client(self.url) as client:
            if not await until(has_operations, timeout_s=READY_WITHIN_S):
                raise StackError(f"the broker does not see every worker; their logs are in {self._embedded.logs}")


async def unless_stopped(work: Coroutine[object, object, T], stopping: asyncio.Event) -> T:
    """Await `work`; when `stopping` is set first, cancel it, wait until it has cleaned up, and raise Stopped."""
    task = asyncio.create_task(work)
    waiter = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if task.cancelled():
            raise Stopped
        return task.result()
    finally:
        waiter.cancel()


class Aside:
    """Calls in order, in a thread: a terminal that takes nothing (Ctrl-S) must not stop whoever restarts the dead."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def call(self, function: Callable[[T], None], argument: T) -> None:
        """Have it called soon."""
        self._calls.put(lambda: function(argument))

    def finish(self, *, within_s: float = _SAY_WITHIN_S) -> bool:
        """Wait a while until all has been called; False when something still hangs."""
        self._calls.put(None)
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            with suppress(OSError):  # nobody reads any more
                call()


async def up(
    directory: Path,
    *,
    port: int,
    report: Report,
    ready: Callable[[Stack], None],
    given: Mapping[str, str] | None = None,
) -> None:
    """Run the stack until a signal comes; `ready` is called once, when it takes jobs."""
    stopping = stop_on_signals(asyncio.get_running_loop())
    aside = Aside()

    async def run() -> None:
        async with Stack(directory, report=partial(aside.call, report), port=port, given=given) as stack:
            aside.call(ready, stack)
            await stack.watch(stopping)

    try:
        await unless_stopped(run(), stopping)
    except Stopped:
        aside.call(report, "stopped before everything was up")
    finally:
        aside.finish()


def data_directory(environment: dict[str, str]) -> Path:
    """Where Postgres, Redis and the model weights lie."""
    return Path(environment.get("LETHE_DATA_DIR", ".lethe/data")).absolute()


async def _keyholder_answers(path: str) -> bool:
    keyholder = Keyholder(path)
    try:
        await keyholder.hello()
    except Unavailable:
        return False
    finally:
        await keyholder.aclose()
    return True


def _two_free_ports() -> tuple[int, int]:
    # Chosen here, not by the broker: one that crashes comes back where it was.
    with socket.socket() as one, socket.socket() as other:
        one.bind((_HOST, 0))
        other.bind((_HOST, 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True

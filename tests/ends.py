"""
A broker, one worker and a keyholder in processes of their own, and job after job that is brought to a chosen end.

Each upload carries markers, as `lethe forensics` plants them; every process of the three is looked through for these.
"""

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from pathlib import Path

import httpx
import msgspec

from broker.forensics.inspection import Inspection
from broker.forensics.markers import Family, Place, plant
from broker.forensics.orders import Ordered, Phones
from broker.forensics.processes import DeletedFiles, Memory, descendants
from broker.forensics.provider import CONFIG, HeldProvider, Reply
from broker.forensics.search import Quarry
from broker.frames import KEY_BYTES
from broker.frames import Memory as Pages
from broker.routing import LONG_WAIT_S
from broker.settings import Settings
from broker.store.keys import Keyholder, OpenAnswer
from providers.calls import trust
from tests.keyholder_process import KeyholderProcess
from tests.lifecycle import eventually, rows_of
from tests.processes import LetheProcess, lethe_process
from tests.relay import settings_with
from tests.stack import CONFIG as IN_HOUSE

UPLOADS = "SELECT key_id, fence FROM uploads JOIN jobs ON id = job_id WHERE finalized_at IS NULL"
DEADLINE_S = 15
"""Long enough to look through a worker meanwhile."""


BUSY_S = round(LONG_WAIT_S) + 1
"""A job that has to wait so long is given back."""


class Kind(StrEnum):
    """Which worker runs the job."""

    GPU = "gpu"
    RELAY = "relay"


OPERATIONS = {Kind.GPU: "restyle", Kind.RELAY: "edit"}
SURFACES = ((Memory, ""), (DeletedFiles, "'s files"))
LIVE = {Kind.GPU: {Place.PIXELS}, Kind.RELAY: {Place.PIXELS, Place.PROMPT}}
"""What a worker holds in plain while its job runs."""


class Provider(HeldProvider):
    """One that may have no time for the orders that it holds, and takes them when they come again."""

    is_busy = False

    async def _answer(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        if not self.is_busy:
            return await super()._answer(writer, reply)
        self.is_busy = False
        head = f"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: {BUSY_S}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        return None


class Scene:
    """The processes, and the job."""

    def __init__(self, kind: Kind, settings: Settings, folder: Path, keyholder: KeyholderProcess) -> None:
        self.kind = kind
        self.settings = settings
        self.keyholder = keyholder
        self._folder = folder
        self._gate = folder / "gate" / "open"
        self._gate.parent.mkdir()
        self._family = Family()
        self._keys: dict[bytes, str] = {}
        self._workers = AsyncExitStack()
        self.broker: LetheProcess
        self.worker: LetheProcess
        self.provider: Provider
        self.phones: Phones
        self.job: Ordered

    async def start_worker(self) -> None:
        """Start another one; the broker sees it before the job needs it."""
        module = ["tests.slow_worker", "gpu"] if self.kind is Kind.GPU else ["workers", "relay"]
        started = lethe_process(module, self.settings, self._folder, LETHE_TEST_GATE=str(self._gate))
        self.worker = self._workers.enter_context(started)

    async def stop_workers(self) -> None:
        """Stop whichever there are."""
        self._gate.touch()
        await self._workers.aclose()

    async def ready(self) -> None:
        """Wait until the operation is offered, after whatever became of the worker under an earlier job."""
        if self.worker.running.poll() is not None:
            await self.start_worker()
        await eventually(lambda: _offers(self.settings.listen, self), within_s=40)

    async def order(self, *, finish_within_s: int = 0) -> None:
        """Send a job whose upload is marked; what held an earlier one holds nobody any more."""
        for left in self._gate.parent.iterdir():
            left.unlink()
        user = await self.phones.new_user()
        planted = plant(self._family, "the job")
        self.job = Ordered(name="the job", planted=planted, operation=OPERATIONS[self.kind], user=user)
        self.provider.expect(self.job.marker)
        await self.phones.order(self.job, finish_within_s=finish_within_s)

    async def until_held(self) -> None:
        """Wait until a model, or the provider, has it."""

        async def has_begun() -> bool:
            return any(self._gate.parent.glob("started-*"))

        async with asyncio.timeout(30):
            await (self.provider.arrived(self.job.marker) if self.kind is Kind.RELAY else eventually(has_begun))

    def answer(self, reply: Reply) -> None:
        """Let the model, or the provider, end it."""
        self._gate.write_bytes(b"fail" if reply is Reply.REFUSED else b"")
        self.provider.end(self.job.marker, reply)

    async def drain_worker(self) -> None:
        """Stop the worker as an operator does: it gives back what it has not finished."""
        self.worker.running.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self.worker.running.wait, 20) == 0

    async def lose_keys(self) -> None:
        """Kill -9 the keyholder, and start one that knows nothing."""
        self.keyholder.stop()
        self.keyholder.start()  # from this thread: it ends with it

    async def code(self) -> str:
        """Say why the job ended as it did."""
        (row,) = await rows_of(self.settings, f"SELECT coalesce(code, '') FROM jobs WHERE public_id = '{self.job.id}'")
        return str(row[0])

    async def read_keys(self) -> None:
        """Learn the job's keys while they are there, to look for them."""
        keys = Keyholder(self.settings.keyholder_socket)
        for row in await rows_of(self.settings, UPLOADS):
            key = bytearray(KEY_BYTES)
            assert await keys.open_into(row["key_id"], key, fence=row["fence"]) is OpenAnswer.OK
            self._keys[bytes(key)] = str(Place.KEY)
        await keys.aclose()

    def inspection(self) -> Inspection:
        """What looks through the memory of each part and through its files without a name, in which pictures lie."""
        # The worker first: it holds what it holds until a deadline, at most.
        parts = {"worker": lambda: self.worker, "broker": lambda: self.broker, "keyholder": lambda: self.keyholder}
        surfaces = [kind(f"{name}{of}", _pids(part)) for name, part in parts.items() for kind, of in SURFACES]
        return Inspection(surfaces, watch=lambda _: None)

    async def live(self, inspection: Inspection) -> dict[str, set[Place]]:
        """Say what is in each part now."""
        await inspection.live(self._quarry, phase="live")
        found: dict[str, set[Place]] = {}
        for name, findings in inspection.findings.items():
            found.setdefault(name.partition("'")[0], set()).update(map(Place, findings.live))
        return found

    async def left(self, inspection: Inspection) -> list[str]:
        """Say what any part that lives still holds, now that the job is over."""
        await inspection.after(self._quarry, phase="after")
        findings = inspection.findings.values()
        assert not any(found.not_scanned for found in findings)
        return [f"{find.what} ({find.encoding}) in {find.part}" for found in findings for find in found.after]

    @property
    def _quarry(self) -> Quarry:
        return Quarry(self._family, self._keys)


def _pids(part: Callable[[], LetheProcess | KeyholderProcess]) -> Callable[[], set[int]]:
    """Every process of a part as it is when asked: guards, nurseries and their children too."""
    return lambda: {part().running.pid, *descendants(part().running.pid)}


@asynccontextmanager
async def scene(kind: Kind, settings: Settings, folder: Path) -> AsyncGenerator[Scene]:
    """Start everything; inside the block the operation is offered, and job after job can be ordered."""
    async with AsyncExitStack() as exits:
        # The provider's answer is a picture without markers.
        provider = await exits.enter_async_context(_listening(Provider("", plant(Family(), "the answer").picture())))
        keyholder = KeyholderProcess(folder / "k.sock", "--memory", Pages.MLOCK)
        exits.callback(keyholder.stop)
        with socket.create_server(("127.0.0.1", 0)) as free:
            listen = f"127.0.0.1:{free.getsockname()[1]}"
        config = IN_HOUSE.read_text() + CONFIG.replace("$URL", provider.url)
        own = settings_with(settings, folder, config, lease_s=20.0, keyholder_socket=keyholder.socket_path)
        own = msgspec.structs.replace(own, listen=listen)
        made = Scene(kind, own, folder, keyholder)
        made.provider = provider
        made.broker = exits.enter_context(lethe_process(["broker"], own, folder))
        exits.push_async_callback(made.stop_workers)
        await made.start_worker()
        await made.ready()
        made.phones = Phones(f"http://{listen}")
        exits.push_async_callback(made.phones.aclose)
        yield made


@asynccontextmanager
async def _listening(provider: Provider) -> AsyncGenerator[Provider]:
    server = await asyncio.start_server(provider.connected, "127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
        await provider.let_go()


async def _offers(listen: str, made: Scene) -> bool:
    for process in (made.broker, made.worker):
        assert process.running.poll() is None, process.log
    try:
        async with httpx.AsyncClient(verify=trust()) as http:
            return f'"{OPERATIONS[made.kind]}"' in (await http.get(f"http://{listen}/v1/operations")).text
    except httpx.TransportError:
        return False


End = Callable[[Scene], Awaitable[None]]
"""Brings a job that runs to its end."""


async def succeed(scene: Scene) -> None:
    """The model, or the provider, delivers."""
    scene.answer(Reply.DONE)


async def fail(scene: Scene) -> None:
    """It refuses."""
    scene.answer(Reply.REFUSED)


async def cancel(scene: Scene) -> None:
    """The user takes the job back."""
    await scene.phones.cancel(scene.job)


async def run_out(scene: Scene) -> None:
    """The deadline passes."""


async def give_back(scene: Scene) -> None:
    """The worker gives it back, and another one finishes it."""
    await _give_back(scene)
    scene.answer(Reply.DONE)


async def lose_keys(scene: Scene) -> None:
    """The worker gives it back, and nobody has its key any more."""
    await scene.lose_keys()
    await _give_back(scene)


async def _give_back(scene: Scene) -> None:
    # A relay worker that is drained waits for an order that is not answered yet: a provider that has no time is what
    # makes it give a job back.
    if scene.kind is Kind.RELAY:
        scene.provider.is_busy = True
        return scene.answer(Reply.DONE)
    await scene.drain_worker()
    return await scene.start_worker()


ENDS: dict[str, tuple[End, str, str]] = {
    "success": (succeed, "succeeded", ""),
    "failure": (fail, "failed", "invalid_image"),
    "cancel": (cancel, "canceled", "canceled_by_user"),
    "deadline": (run_out, "expired", "not_finished_in_time"),
    "key_lost": (lose_keys, "failed", "key_lost"),
    "give_back": (give_back, "succeeded", ""),
}
"""What brings a job to an end, the state that it has then, and the code."""

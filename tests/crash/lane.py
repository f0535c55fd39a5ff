"""One world in which job after job meets its crash point, and the look into every store afterwards."""

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from broker.errors import KeyholderUnavailable
from tests.crash.kinds import Case, Kind, Told
from tests.crash.points import Control, Mode, Point, worth
from tests.phone import Marks, Phone
from tests.reconcile import Stores
from tests.residue import files_with, memory_with
from tests.third_parties import ThirdParties, running_third_parties
from tests.world import World, running_world

IDLE_S = 2.0
"""Longer than the pause of every loop that runs without a job."""
REST_S = 2.0
"""How long after the end of a job something of it may still be done: hints, purges, changes."""
CLEAN_WITHIN_S = 10.0
LOOK_AGAIN_S = 0.02
COPIED = ("postgres", "redis", "blobs", "receipt.key")

Cutting = asyncio.Task[list[str]]
"""A power cut that comes when its point does; returns what was found in the directories then."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job whose crash point came."""

    kind: str
    point: str
    mode: Mode
    is_reached: bool = False
    is_broken: bool = False
    """Whether the test itself could not go on."""
    status: str = ""
    code: str = ""
    output: str = ""
    violations: tuple[str, ...] = ()
    took_s: float = 0.0

    @classmethod
    def broken(cls, kind: Kind, point: Point, mode: Mode, why: str) -> Self:
        """Make the outcome of a trial that could not go on, which is a violation."""
        return cls(kind=kind.name, point=str(point), mode=mode, is_broken=True, violations=(why,))


class Lane:
    """Runs one job at a time."""

    def __init__(self, world: World, third_parties: ThirdParties, phone: Phone, control: Control) -> None:
        self._world = world
        self._third_parties = third_parties
        self._phone = phone
        self._control = control
        self._stores = Stores(world.settings.postgres_dsn, world.settings.keyholder_socket, world.blobs)

    async def idle(self) -> list[Point]:
        """Record what is passed while there is no job."""
        await self._world.ready()
        self._control.order(Mode.RECORD)
        await asyncio.sleep(IDLE_S)
        self._control.withdraw()
        return self._control.passed()

    async def points(self, kind: Kind, *, idle: list[Point]) -> list[Point]:
        """Run a job that nothing happens to, and return the points that it passes."""
        case = self._case(kind)
        self._control.order(Mode.RECORD)
        told = await case.run()
        assert (told.status, told.violations) == (kind.ends, ()), told
        await case.delete()
        await asyncio.sleep(REST_S)
        self._control.withdraw()
        return worth(self._control.passed(), idle=idle)

    async def trial(self, kind: Kind, point: Point, mode: Mode) -> Outcome:
        """Run a job, let its crash point come, and look at what is left."""
        began_s = time.monotonic()
        await self._world.ready()
        case = self._case(kind)
        self._control.order(mode, point)
        cutting = asyncio.create_task(self._cut(case) if mode is Mode.CUT else _nothing())
        began_at_s = time.time()
        told, violations = await self._through(case, cutting, since_s=began_at_s)
        is_reached = not self._control.withdraw()
        violations += await _cut_or_not(cutting, is_reached=is_reached)
        violations += await self._look(case.marks, since_s=began_at_s, is_deleted=True)
        return Outcome(
            kind=kind.name,
            point=str(point),
            mode=mode,
            is_reached=is_reached,
            status=told.status,
            code=told.code,
            output=told.output,
            violations=tuple(dict.fromkeys([*told.violations, *violations])),
            took_s=round(time.monotonic() - began_s, 1),
        )

    def _case(self, kind: Kind) -> Case:
        return Case(kind, self._phone, self._third_parties)

    async def _through(self, case: Case, cutting: Cutting, *, since_s: float) -> tuple[Told, list[str]]:
        """Bring a job to its end and away; look in between, where the point has come by then."""
        violations: list[str] = []
        told = await case.run()
        if self._control.is_carried_out:
            await cutting  # the point of a job that is over already: its world is about to be taken down
            violations += await self._look(case.marks, since_s=since_s, is_deleted=False)
        await case.delete()
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                await self._reached()
        return told, violations

    async def _reached(self) -> None:
        while not self._control.is_carried_out:  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _cut(self, case: Case) -> list[str]:
        """When the point comes, let the restart see what lies in the directories at this moment, and nothing else."""
        await self._reached()
        world, copy = self._world, self._world.folder / "copy"
        with case.without_a_machine():
            world.freeze()
            found = await asyncio.to_thread(_copy, world.folder, copy, case.marks)
            await world.kill()
            for name in COPIED:
                await asyncio.to_thread(_replace, world.folder / name, copy / name)
            copy.rmdir()
            await world.start()
            await world.ready()
        return found

    async def _look(self, marks: Marks, *, since_s: float, is_deleted: bool) -> list[str]:
        """Every store by itself, every file, every process; what is being swept has a moment."""
        await self._world.ready()
        ends_s = time.monotonic() + CLEAN_WITHIN_S
        while violations := await self._reconciled(is_deleted=is_deleted):
            if time.monotonic() > ends_s:
                break
            await asyncio.sleep(0.2)
        return [*violations, *await asyncio.to_thread(self._residue, marks, since_s)]

    async def _reconciled(self, *, is_deleted: bool) -> list[str]:
        try:
            found = await self._stores.reconcile()
        except (OSError, KeyholderUnavailable) as exc:
            return [f"stores: {type(exc).__name__}"]
        left = sorted(path.name for path in self._world.blobs.iterdir()) if is_deleted else []
        return [*found.violations, *([f"blobs after the end: {left}"] if left else [])]

    def _residue(self, marks: Marks, since_s: float) -> list[str]:
        files = files_with(marks.needles, self._world.folder, since_s=since_s)
        memories = memory_with(marks.needles, self._world.lethe_pids)
        return [*(f"hit in file {name}" for name in files), *(f"hit in memory of {name}" for name in memories)]


@asynccontextmanager
async def open_lane(*, seed: int) -> AsyncGenerator[Lane]:
    """Make a world with hooks at its crash points, and what is around it."""
    # Short: a Unix socket's path has room for a hundred bytes.
    folder = Path(tempfile.mkdtemp(prefix="lethe-crash-"))
    try:
        control = Control(folder / "hooks")
        with running_third_parties() as third_parties:
            async with running_world(World(folder, third_parties.config, hooked=control.folder)) as world:
                phone = Phone(world.urls, seed=seed)
                await phone.open()
                try:
                    yield Lane(world, third_parties, phone, control)
                finally:
                    await phone.aclose()
    finally:
        shutil.rmtree(folder)


async def _nothing() -> list[str]:
    return []


async def _cut_or_not(cutting: Cutting, *, is_reached: bool) -> list[str]:
    if not is_reached:
        cutting.cancel()
    (found,) = await asyncio.gather(cutting, return_exceptions=True)
    if isinstance(found, list):
        return found
    if isinstance(found, asyncio.CancelledError):
        return []
    raise found


def _copy(folder: Path, copy: Path, marks: Marks) -> list[str]:
    """Copy the data as it lies there, owners and times included; name what holds something of an upload."""
    copy.mkdir()
    subprocess.run(["cp", "-a", *(str(folder / name) for name in COPIED), str(copy)], check=True)
    return [f"hit at the cut in file {name}" for name in files_with(marks.needles, folder)]


def _replace(old: Path, new: Path) -> None:
    if old.is_dir():
        shutil.rmtree(old)
    new.replace(old)

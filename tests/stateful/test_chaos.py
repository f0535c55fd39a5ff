"""
Everything is killed and paused while many phones send: in the end every job is final and no copy of an upload is left.

The suite runs the short form. For a longer one with other seeds, widen LONG:
`LONG = tuple(Chaos(seed=n, for_s=240, blows=60) for n in range(3))`.
"""

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec
import pytest

from broker.store.keys import Keyholder
from broker.verify import check, read_keys
from tests.chaos_load import Load
from tests.chaos_strikes import Strikes, parts_of
from tests.process_memory import readable_memory
from tests.up_process import UpProcess, descendants, lethe_up, wait_until_gone

REPOSITORY = Path(__file__).parents[2]
ALL_FINAL_WITHIN_S = 45.0

OPEN_OF_FINAL = """
    SELECT custody.id FROM custody JOIN jobs ON jobs.id = custody.job_id
    WHERE custody.closed_at IS NULL AND custody.domain = 'ours' AND jobs.finalized_at IS NOT NULL
      AND NOT (custody.what = 'output' AND jobs.state = 'succeeded' AND jobs.outputs_until > now())
"""
WITHOUT_ONE_RECEIPT = """
    SELECT id FROM jobs
    WHERE finalized_at IS NOT NULL AND (SELECT count(*) FROM receipts WHERE receipts.job_id = jobs.id) <> 1
"""
BLOBS = """
    SELECT ref FROM custody
    WHERE holder = 'blob' AND (closed_at IS NULL OR (evidence = 'unreadable' AND swept_at IS NULL))
"""
KEYS = "SELECT ref, detail FROM custody WHERE holder = 'key' AND closed_at IS NULL"


class Chaos(msgspec.Struct, frozen=True, kw_only=True):
    """How long, and how hard."""

    seed: int
    for_s: float
    blows: int


SHORT = (Chaos(seed=7, for_s=12, blows=8),)
LONG: tuple[Chaos, ...] = ()


@pytest.mark.parametrize("chaos", SHORT + LONG, ids=lambda chaos: f"seed{chaos.seed}")
async def test_whatever_dies_no_upload_outlives_its_job(tmp_path: Path, chaos: Chaos) -> None:
    """Kill -9 and pauses for every part, Redis too (the stack ends, and goes on where it was): the law holds."""
    began_s = time.time()
    port, settings = _free_port(), _settings(tmp_path)
    load = Load(f"http://127.0.0.1:{port}", seed=chaos.seed)
    try:
        with ExitStack() as stacks:
            first = stacks.enter_context(lethe_up(tmp_path / "stack", "--port", str(port), **settings))
            await load.open()
            picture = load.picture()
            assert load.marker in picture
            assert load.secret in picture
            running = asyncio.create_task(load.run(phones=6, for_s=chaos.for_s))
            await _strike(first, chaos)
            await _lose_redis(first)
            second = stacks.enter_context(lethe_up(tmp_path / "stack", "--port", str(port), **settings))
            second.keep_reading()
            await running
            assert not load.faults
            async with _looking(second) as look:
                await look.check(load)
            _nothing_is_in_memory(second, load)
            pids = descendants(second.running.pid)
            second.press_ctrl_c()
            assert second.running.wait(20) == 0
        assert not wait_until_gone(pids, within_s=2)
        assert _files_with(load, tmp_path, since_s=began_s) == []
    finally:
        await load.aclose()


async def _strike(up: UpProcess, chaos: Chaos) -> None:
    up.keep_reading()
    strikes = Strikes(up.running.pid, seed=chaos.seed)
    await strikes.run(strikes.plan(chaos.blows), every_s=chaos.for_s / chaos.blows * 0.8)


async def _lose_redis(up: UpProcess) -> None:
    pids = descendants(up.running.pid)
    [redis] = [pid for pid in pids if b"redis-server" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(redis, signal.SIGKILL)
    assert await asyncio.to_thread(up.running.wait, 20) == 1
    assert not wait_until_gone(pids, within_s=2)


class Look:
    """Asks the stores themselves, past Lethe's own words."""

    def __init__(self, postgres: asyncpg.Connection, keyholder: Keyholder, *, blobs: Path) -> None:
        self._postgres = postgres
        self._keyholder = keyholder
        self._blobs = blobs

    async def check(self, load: Load) -> None:
        """The law, store by store."""
        await self._all_is_final()
        assert await self._refs(WITHOUT_ONE_RECEIPT) == set()
        assert {path.name for path in self._blobs.iterdir()} <= await self._refs(BLOBS)
        await self._keys_are_those_of_outputs()
        await self._receipts_verify(load)
        known = await self._refs("SELECT public_id FROM jobs")
        lost = [sent for sent in load.sent if sent.status and sent.id not in known]
        assert not lost
        assert len(known) > 20
        assert {"succeeded", "failed", "canceled"} <= {sent.status for sent in load.sent}

    async def _all_is_final(self) -> None:
        ends_s = time.monotonic() + ALL_FINAL_WITHIN_S
        unsettled = "SELECT id FROM jobs WHERE finalized_at IS NULL OR open_copies <> 0"
        while left := await self._refs(unsettled) | await self._refs(OPEN_OF_FINAL):
            assert time.monotonic() < ends_s, left
            await asyncio.sleep(0.2)

    async def _keys_are_those_of_outputs(self) -> None:
        incarnation = (await self._keyholder.hello()).hex()
        rows = await self._postgres.fetch(KEYS)
        ours = [row["ref"] for row in rows if incarnation in row["detail"]]
        assert [ref for ref in ours if not await self._keyholder.has(bytes.fromhex(ref))] == []
        assert (await self._keyholder.stats()).held == len(ours)

    async def _receipts_verify(self, load: Load) -> None:
        keys = read_keys((await load.get("/v1/privacy/keys")).text)
        for row in await self._postgres.fetch("SELECT note FROM receipts"):
            check(row["note"], keys)

    async def _refs(self, query: str) -> set[object]:
        return {row[0] for row in await self._postgres.fetch(query)}


@asynccontextmanager
async def _looking(up: UpProcess) -> AsyncGenerator[Look]:
    environment = await _environment(up)
    postgres = await asyncpg.connect(environment["LETHE_POSTGRES_DSN"])
    keyholder = Keyholder(environment["LETHE_KEYHOLDER_SOCKET"])
    try:
        yield Look(postgres, keyholder, blobs=up.directory / "blobs")
    finally:
        await keyholder.aclose()
        await postgres.close()


async def _environment(up: UpProcess) -> dict[str, str]:
    [guard] = parts_of(up.running.pid)["broker guard"]
    text = Path(f"/proc/{guard}/environ").read_text()
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)


def _nothing_is_in_memory(up: UpProcess, load: Load) -> None:
    if os.geteuid() != 0:
        return  # only root may read the memory of a hardened process
    for name in ("broker", "worker", "nursery", "keyholder", "broker guard", "worker guard"):
        for pid in parts_of(up.running.pid)[name]:
            assert not [part for part in readable_memory(pid) if load.secret in part or load.marker in part], name


def _files_with(load: Load, folder: Path, *, since_s: float) -> list[Path]:
    """Look into every file that is new since then, for what was uploaded and for the token."""
    needles = (load.marker, load.secret, load.token.encode())
    found: list[Path] = []
    for path in (*folder.rglob("*"), *Path("/dev/shm").glob("*"), *Path("/tmp").glob("*")):
        try:
            if path.is_file() and path.stat().st_mtime > since_s and any(n in path.read_bytes() for n in needles):
                found.append(path)
        except OSError:
            continue
    return found


def _settings(folder: Path) -> dict[str, str]:
    """The shipped profile without what would only slow many phones down, and a lease that ends soon."""
    wide = {"jobs_at_once": 1000, "jobs_per_minute": 100_000, "start_within_s": 60, "finish_within_s": 90}
    text = (REPOSITORY / "policies" / "profiles" / "minimal.toml").read_text()
    for name, value in wide.items():
        text = re.sub(rf"(?m)^{name} = \S+", f"{name} = {value}", text)
    profile = folder / "wide.toml"
    profile.write_text(text)
    return {
        "LETHE_PROFILE": str(profile),
        "LETHE_CONFIG_FILE": str(REPOSITORY / "tests" / "lethe.toml"),
        "LETHE_LEASE_S": "3",
        "LETHE_UPLOAD_IDLE_S": "2",
        "LETHE_UPLOAD_WITHIN_S": "20",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""
Keys of many jobs, looked for in the memory of every process that ever saw one: nothing of any is left after settle.

LETHE_TEST_JOBS says of how many jobs: 48 in the suite, 1,000 for the figure in docs/privacy.md.
"""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import msgspec

from broker.frames import KEY_BYTES, Memory
from broker.settings import Settings
from broker.store.keys import Keyholder, OpenAnswer
from tests.keyholder_process import KeyholderProcess
from tests.lifecycle import eventually
from tests.needles import NEEDLE_BYTES, Needles, halves
from tests.process_memory import needs_root, readable_memory
from tests.processes import LetheProcess, lethe_process
from tests.profiles import profile_file
from tests.stack import upload_bytes

JOBS = int(os.environ.get("LETHE_TEST_JOBS", "48"))
AT_ONCE = 24

UPLOADS = "SELECT key_id, fence FROM uploads JOIN jobs ON id = job_id WHERE finalized_at IS NULL"
OUTPUTS = "SELECT key_id, fence FROM outputs JOIN jobs ON id = job_id WHERE destroyed_at IS NULL"


class Running:
    """A keyholder in memory that root can read, a broker, and a worker whose model waits at a gate."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient, gate: Path, *roots: int) -> None:
        self._keys = Keyholder(settings.keyholder_socket)
        self._dsn = settings.postgres_dsn
        self._http = http
        self._gate = gate
        self._begun = 0
        self.roots = roots

    async def aclose(self) -> None:
        await self._keys.aclose()

    async def batch(self, count: int) -> tuple[list[str], list[bytes]]:
        """Send so many jobs and let them wait in the worker, their uploads open; return the keys of these."""
        self._gate.unlink(missing_ok=True)
        paths = [f"/v1/jobs/{uuid4()}" for _ in range(count)]
        answers = await asyncio.gather(
            *(self._http.put(path, params={"operation": "noop"}, content=upload_bytes()) for path in paths)
        )
        assert {answer.status_code for answer in answers} == {202}, answers[0].text
        self._begun += count
        await eventually(self._all_wait, within_s=60)
        return paths, await self._opened(UPLOADS)

    async def end(self, paths: list[str]) -> list[bytes]:
        """Let the jobs end, fetch and delete their outputs; return the keys of these."""
        self._gate.touch()
        for path in paths:
            while "finalized_at" not in (await self._http.get(path, headers={"Prefer": "wait=20"})).json():
                pass
        keys = await self._opened(OUTPUTS)
        assert len(keys) == len(paths)
        for path in paths:
            assert (await self._http.get(f"{path}/outputs/0")).status_code == 200
            assert (await self._http.delete(path)).json()["outputs"] == "destroyed"
        return keys

    async def _all_wait(self) -> bool:
        return len(list(self._gate.parent.glob("started-*"))) == self._begun

    async def _opened(self, statement: str) -> list[bytes]:
        connection = await asyncpg.connect(self._dsn)
        try:
            rows = await connection.fetch(statement)
        finally:
            await connection.close()
        keys = [bytearray(KEY_BYTES) for _ in rows]
        for row, key in zip(rows, keys, strict=True):
            assert await self._keys.open_into(row["key_id"], key, fence=row["fence"]) is OpenAnswer.OK
        return [bytes(key) for key in keys]


@asynccontextmanager
async def running(settings: Settings, folder: Path) -> AsyncGenerator[Running]:
    gate = folder / "gate" / "open"
    gate.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    keyholder = KeyholderProcess(folder / "k.sock", "--memory", Memory.MLOCK, "--capacity", "4096")
    settings = msgspec.structs.replace(
        settings,
        keyholder_socket=keyholder.socket_path,
        profile=profile_file(folder, jobs_per_minute="60_000", jobs_at_once="8_000"),
        listen=listen,
        slots=AT_ONCE,
        lease_s=20.0,
    )
    try:
        with (
            lethe_process(["broker"], settings, folder) as broker,
            lethe_process(["tests.slow_worker"], settings, folder, LETHE_TEST_GATE=str(gate)) as worker,
        ):
            async with httpx.AsyncClient(base_url=f"http://{listen}", timeout=60) as http:
                await eventually(lambda: offers_noop(http, broker, worker), within_s=40)
                http.headers["Authorization"] = f"Bearer {(await http.post('/v1/users')).json()['token']}"
                pids = broker.running.pid, worker.running.pid, keyholder.running.pid
                started = Running(settings, http, gate, *pids)
                yield started
                await started.aclose()
                gate.touch()
    finally:
        keyholder.stop()


async def offers_noop(http: httpx.AsyncClient, *processes: LetheProcess) -> bool:
    assert all(process.running.poll() is None for process in processes), [process.log for process in processes]
    try:
        return "noop" in (await http.get("/v1/operations")).text
    except httpx.TransportError:
        return False


def with_children(pid: int) -> list[int]:
    """A process and all below it: guards hold nothing, and neither may a zygote."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in with_children(int(child)))]


def memory_of(*roots: int) -> list[bytes]:
    return [part for root in roots for pid in with_children(root) for part in readable_memory(pid)]


@needs_root
async def test_no_key_is_left_in_any_process(settings: Settings, tmp_path: Path) -> None:
    """Live keys are found in the keyholder alone; after settle and DELETE none, nor half of one, is found anywhere."""
    async with running(settings, tmp_path) as run:
        broker, worker, keyholder = run.roots
        keys: list[bytes] = []
        done = 0
        while done < JOBS:
            paths, live = await run.batch(min(AT_ONCE, JOBS - done))
            assert len(live) == len(paths)
            if not done:
                found = Needles(halves(live)).found_in(memory_of(keyholder))
                assert len(found) == 2 * len(live), "the search finds what is there"
                elsewhere = len(Needles(halves(live)).found_in(memory_of(broker, worker)))
                assert elsewhere == 0
            keys += [*live, *await run.end(paths)]
            done += len(paths)
        assert len(set(keys)) == 2 * JOBS
        left = len(Needles(halves(keys)).found_in(memory_of(broker, worker, keyholder)))
        assert left == 0
        seed = (tmp_path / "receipt.key").read_bytes()
        for process in (broker, worker):
            found = Needles(halves([seed])).found_in(memory_of(process))
            assert seed[:NEEDLE_BYTES] in found, "a key that this process does hold is found in it"

"""Real servers for tests: one Postgres, Redis and keyholder a session, one database a test."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from broker import itself
from broker.embedded import Embedded
from broker.frames import Hardening
from broker.guard import Guard
from broker.jobs import Job
from broker.posture import Fact, fact
from broker.services import Services, open_services
from broker.settings import Settings
from broker.store.keys import Keyholder, PutAnswer
from broker.store.processes import Facts, Process
from broker.submission import Submission
from policies.posture import Demand
from tests.checks import CANARY, database_faults, plant, refuse_unlisted_keys
from tests.databases import Databases
from tests.keyholder_process import KeyholderProcess

DATA = Path(__file__).parents[1] / ".lethe" / "data"
CONFIG = Path(__file__).with_name("lethe.toml")
PROVIDERS = ("noop", "pencil", "realesrgan")
JPEG_HEAD = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


class Servers:
    """Postgres, Redis and a keyholder that live as long as the test session."""

    def __init__(self, folder: Path) -> None:
        self.embedded = Embedded(folder / "stack", data_directory=DATA)
        self.databases = Databases(self.embedded, folder / "stack" / "postgres")
        asyncio.run(self._start())
        self.keyholder = KeyholderProcess(self.embedded.run_directory / "keyholder.sock")

    async def _start(self) -> None:
        await self.embedded.start()
        refuse_unlisted_keys(self.embedded.redis_url)
        await self.databases.open()

    def stop(self) -> None:
        self.keyholder.stop()
        asyncio.run(self.embedded.stop())


@asynccontextmanager
async def own_database(servers: Servers) -> AsyncGenerator[str]:
    databases = servers.databases
    name = await databases.take()
    try:
        yield databases.dsn(name)
        faults = await database_faults(databases.dsn(name))
        assert not faults
        await _shred_left(servers, databases.dsn(name))
    except BaseException:
        await databases.drop(name)
        raise
    await databases.give_back(name)


async def _shred_left(servers: Servers, dsn: str) -> None:
    """No key is left for the next test, which may count them: it would end, by its time, in the middle of that test."""
    keyholder = Keyholder(servers.keyholder.socket_path)
    try:
        if (await keyholder.stats()).held:
            for key_id in await _open_keys(dsn):
                await keyholder.shred(key_id, ttl_s=60)
        if (await keyholder.stats()).held:
            servers.keyholder.stop()
            servers.keyholder.start()
    finally:
        await keyholder.aclose()


async def _open_keys(dsn: str) -> list[bytes]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT ref FROM custody WHERE holder = 'key' AND closed_at IS NULL")
    except asyncpg.UndefinedTableError:  # of a test that has dropped it
        return []
    else:
        return [bytes.fromhex(ref) for (ref,) in rows]
    finally:
        await connection.close()


def settings_for(servers: Servers, dsn: str, folder: Path) -> Settings:
    return Settings(
        postgres_dsn=dsn,
        postgres_connections=4,
        redis_url=servers.embedded.redis_url,
        blobs_url=f"file://{folder}/blobs",
        keyholder_socket=servers.keyholder.socket_path,
        receipt_key_file=str(folder / "receipt.key"),
        receipt_name="lethe.test/receipts",
        config_file=str(CONFIG),
        data_dir=str(DATA),
        listen="127.0.0.1:0",
        operator_listen="127.0.0.1:0",
        lease_s=3.0,
        rescue_every_s=0.1,
        upload_idle_s=1.0,
        upload_within_s=20.0,
    )


def environment_of(settings: Settings) -> dict[str, str]:
    """Settings as the variables that a child process reads."""
    encoded: dict[str, object] = msgspec.to_builtins(settings)
    return {name: str(value) for name, value in encoded.items() if value is not None}


def hardened_facts() -> tuple[Fact, ...]:
    """What a worker tells that is all that a profile can demand."""
    return tuple(fact(name, is_so=True) for name in Demand)


@contextmanager
def as_if_hardened() -> Generator[None]:
    """Let services in this process say of it what only one that Lethe starts is."""
    with (
        patch.object(itself, "observed", lambda: ~Hardening.NONE),
        patch.object(itself, "is_allow_listed", lambda: True),
    ):
        yield


class PipeGuard:
    """A guard without teeth: the deadlines that would kill can be read from its pipe."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.guard = Guard(writing)
        self._writing = writing

    def close(self) -> None:
        for descriptor in (self.reading, self._writing):
            with suppress(OSError):
                os.close(descriptor)

    def deadlines(self) -> list[int]:
        with suppress(BlockingIOError):
            data = os.read(self.reading, 1 << 16)
            return [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
        return []


@asynccontextmanager
async def running_services(settings: Settings, *, role: str = "broker") -> AsyncGenerator[Services]:
    pipe, facts = PipeGuard(), Facts(posture=hardened_facts())
    try:
        async with open_services(settings, role=role, facts=facts, guard=pipe.guard) as services:
            yield services
    finally:
        pipe.close()


def keyholder_of(services: Services) -> Keyholder:
    """The only keyholder that there is in most tests."""
    return next(iter(services.stores.keys))


class Kept(NamedTuple):
    """One key that was put: as it was, the buffer that it came in, and how long it lives."""

    key: bytes
    buffer: bytearray
    ttl_s: int


def watch_puts(services: Services, monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    """Return the keys that are put from now on, as they come."""
    seen: list[Kept] = []
    keyholder = keyholder_of(services)
    put = keyholder.put

    async def put_seen(key_id: bytes, key: bytearray, *, ttl_s: int, incarnation: bytes = b"") -> PutAnswer:
        seen.append(Kept(bytes(key), key, ttl_s))
        return await put(key_id, key, ttl_s=ttl_s, incarnation=incarnation)

    monkeypatch.setattr(keyholder, "put", put_seen)
    return seen


async def pretend_worker(services: Services, *, lease_s: float = 3600) -> UUID:
    """A row that says that a worker lives, for tests that play the worker themselves."""
    facts = Facts(pool="gpu", providers=PROVIDERS, posture=hardened_facts())
    process = Process(id=uuid4(), role="worker", facts=facts)
    await services.stores.processes.register(process, lease_s=lease_s)
    return process.id


async def body_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def upload_bytes(size: int = 5_000) -> bytes:
    """Bytes that pass the door as a JPEG; then the canary; the rest is noise."""
    head = JPEG_HEAD + CANARY.encode()
    return head + os.urandom(size - len(head))


async def submission(services: Services, **changed: object) -> Submission:
    new = await services.stores.users.mint()
    plant(new.token)
    plain = Submission(
        user_id=new.user_id,
        token=new.token,
        public_id=uuid4(),
        operation="noop",
        parameters={},
        content_length=None,
        start_within_s=None,
        finish_within_s=None,
    )
    return msgspec.structs.replace(plain, **changed)


async def queued_job(services: Services, body: bytes | None = None) -> Job:
    """A whole upload, waiting to be claimed."""
    job, _ = await services.intake.submit(await submission(services), body_of(body or upload_bytes()))
    return job

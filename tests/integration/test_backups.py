"""Whatever Redis writes down, and whatever is copied of any store while jobs live: nothing of it opens an upload."""

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import msgspec
import pytest

from broker.crypto.chunked import KEY_BYTES, CiphertextInvalid, Decryptor
from broker.jobs import Job, Outcome
from broker.queue import queue_name
from broker.services import Services
from broker.settings import Settings
from broker.store.keys import OpenAnswer
from tests.lifecycle import eventually, final, held
from tests.process_memory import needs_root, readable_memory
from tests.redis_process import RedisProcess
from tests.stack import Servers, keyholder_of, pretend_worker, queued_job, running_services
from tests.workers import slow_worker

JOBS = 5


class Pair:
    """A Redis that keeps everything, and its replica, which does too."""

    def __init__(self, folder: Path) -> None:
        self.leader = RedisProcess(folder / "leader")
        self.replica = RedisProcess(folder / "replica", follows=self.leader)
        self.replica.follows_closely(self.leader)

    def stop(self) -> None:
        self.replica.stop()
        self.leader.stop()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    started = Pair(tmp_path)
    yield started
    started.stop()


def forms(key: bytes) -> list[bytes]:
    """A key as bytes, in hex, and in base64 wherever it may begin in it."""
    encoded = [base64.b64encode(bytes(shift) + key)[4:-4] for shift in range(3)]
    return [key, key.hex().encode(), key.hex().upper().encode(), *encoded]


def found(keys: list[bytes], parts: list[bytes]) -> int:
    """How many of the keys stand in these bytes, in any form."""
    return sum(any(form in part for form in forms(key) for part in parts) for key in keys)


def files_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def live_keys(services: Services, jobs: list[Job]) -> list[bytes]:
    """The keys of uploads that wait, as a worker would get them."""
    keys: list[bytes] = []
    for job in jobs:
        for upload in await services.stores.custody.uploads(job.id):
            key = bytearray(KEY_BYTES)
            assert await keyholder_of(services).open_into(upload.key_id, key, fence=job.fence) is OpenAnswer.OK
            keys.append(bytes(key))
    return keys


async def end(services: Services, job: Job) -> None:
    claimed = await services.stores.jobs.claim(job.id, await pretend_worker(services))
    assert claimed is not None
    owner = services.lease.process.id
    settling = await services.stores.jobs.begin_settling(claimed, Outcome.FAILED, owner=owner, code="tested")
    await services.settler.settle(settling, let_go=held(claimed))


def opens(parts: list[bytes], *, ciphertext: bytes, context: bytes) -> bool:
    """Whether any 32 bytes in a row that stand there are the key of this blob."""
    return any(
        _is_key(part[start : start + KEY_BYTES], ciphertext, context)
        for part in parts
        for start in range(len(part) - KEY_BYTES + 1)
    )


def _is_key(candidate: bytes, ciphertext: bytes, context: bytes) -> bool:
    decryptor = Decryptor(bytearray(candidate), context=context)
    try:
        decryptor.update(ciphertext, memoryview(bytearray(len(ciphertext))))
    except CiphertextInvalid:
        return False
    return True


@needs_root
async def test_no_configuration_of_redis_holds_a_key(settings: Settings, pair: Pair) -> None:
    """
    Append-only file, snapshot, replica and the memory of both, while jobs wait: no key; a planted one is in each.

    And no 32 bytes in a row of the leader's files, tried one after the other, open an upload.
    """
    settings = msgspec.structs.replace(settings, redis_url=pair.leader.url)
    async with running_services(settings) as services:
        await pretend_worker(services)
        jobs = [await queued_job(services) for _ in range(JOBS)]
        keys = await live_keys(services, jobs)
        ids = [job.id.hex.encode() for job in jobs]
        planted = keys.pop()
        pair.leader.client.set("planted", planted, ex=600)
        pair.replica.follows_closely(pair.leader)
        for server in (pair.leader, pair.replica):
            server.snapshot()
            surfaces = {
                "append-only file": server.files("*.aof"),
                "snapshot": server.files("dump.rdb"),
                "memory": readable_memory(server.running.pid),
            }
            for name, parts in surfaces.items():
                assert found([planted], parts) == 1, f"{name}: what is there is found"
                assert any(ids[0] in part for part in parts), f"{name}: it has the jobs"
                assert found(keys, parts) == 0, name
        upload, other = [(await services.stores.custody.uploads(job.id))[0] for job in (jobs[0], jobs[-1])]
        blobs = Path(urlsplit(settings.blobs_url).path)
        files = [*pair.leader.files("*.aof"), *pair.leader.files("dump.rdb")]
        assert opens(files, ciphertext=(blobs / other.blob).read_bytes()[:56], context=other.blob.encode())
        assert not opens(files, ciphertext=(blobs / upload.blob).read_bytes()[:56], context=upload.blob.encode())
        for job in jobs:
            await end(services, job)


async def test_a_promoted_replica_brings_no_upload_back(settings: Settings, pair: Pair, tmp_path: Path) -> None:
    """
    A failover to a replica that missed every end: its bells ring for jobs that are over, and nobody gets a key.

    The same with a key in Redis brings it back: the planted one, whose DEL the replica missed, is there again.
    """
    primary = msgspec.structs.replace(settings, redis_url=pair.leader.url)
    async with running_services(primary) as services:
        await pretend_worker(services)
        jobs = [await queued_job(services) for _ in range(JOBS)]
        pair.leader.client.set("planted", b"a key", ex=600)
        pair.replica.follows_closely(pair.leader)
        pair.replica.promote()
        pair.leader.client.delete("planted")
        for job in jobs:
            await end(services, job)
    pair.leader.stop()
    assert pair.replica.client.get("planted") == b"a key"
    assert pair.replica.client.zcard(queue_name("gpu")) == JOBS

    after = msgspec.structs.replace(settings, redis_url=pair.replica.url)
    async with running_services(after) as services, slow_worker(services, after, tmp_path) as worker:
        await eventually(lambda: _is_drained(pair.replica), within_s=30)
        for job in jobs:
            assert (await final(services, job)).state == "failed"
            for upload in await services.stores.custody.uploads(job.id):
                answer = await keyholder_of(services).open_into(upload.key_id, bytearray(KEY_BYTES), fence=99)
                assert answer is OpenAnswer.GONE
        assert worker.runs == 0


async def _is_drained(server: RedisProcess) -> bool:
    return server.client.zcard(queue_name("gpu")) == 0


async def test_no_backup_of_any_store_opens_an_upload(
    settings: Settings, servers: Servers, pair: Pair, tmp_path: Path
) -> None:
    """
    core-3: copies of every directory, made while jobs wait, all of them together: no key; a planted one is in each.
    """
    settings = msgspec.structs.replace(settings, redis_url=pair.leader.url)
    planted = os.urandom(KEY_BYTES)
    blobs = Path(urlsplit(settings.blobs_url).path)
    async with running_services(settings) as services:
        await pretend_worker(services)
        jobs = [await queued_job(services) for _ in range(JOBS)]
        keys = await live_keys(services, jobs)
        pair.leader.client.set("planted", planted, ex=600)
        pair.leader.snapshot()
        (blobs / "planted").write_bytes(planted)
        await plant_in_postgres(settings.postgres_dsn, planted)
        sources = {"redis": pair.leader.folder, "blobs": blobs, "postgres": servers.databases.folder}
        for name, source in sources.items():
            backup = tmp_path / "backup" / name
            shutil.copytree(source, backup, ignore=shutil.ignore_patterns("*.sock", ".s.*"))
            parts = files_of(backup)
            assert found([planted], parts) == 1, f"{name}: what is there is found"
            assert found(keys, parts) == 0, name
        (blobs / "planted").unlink()
        for job in jobs:
            await end(services, job)


async def plant_in_postgres(dsn: str, value: bytes) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("CREATE TABLE planted (value bytea STORAGE PLAIN)")
        await connection.execute("INSERT INTO planted VALUES ($1)", value)
    finally:
        await connection.close()

"""Postgres, Redis, keyholder or blob store away: refused whole, nothing half-admitted, back to normal by itself."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from broker.errors import (
    BlobsUnavailable,
    KeyholderUnavailable,
    QueueUnavailable,
    StoreUnavailable,
    Unavailable,
)
from broker.jobs import Job, Outcome
from broker.services import Services
from broker.settings import Settings
from broker.store.keys import PutAnswer
from tests.lifecycle import blobs, claimed_job, count, eventually, final, held, keys_held, refs, reread
from tests.stack import (
    Servers,
    body_of,
    keyholder_of,
    own_database,
    pretend_worker,
    queued_job,
    running_services,
    settings_for,
    submission,
    upload_bytes,
)
from tests.workers import slow_worker

OTHERS_OUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname <> current_database()"


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Generator[Servers]:
    """Servers of this module's own, which its tests may stop."""
    started = Servers(tmp_path_factory.mktemp("own"))
    yield started
    started.stop()


@pytest.fixture
async def own_settings(own_servers: Servers, tmp_path: Path) -> AsyncGenerator[Settings]:
    async with own_database(own_servers) as dsn:
        yield settings_for(own_servers, dsn, tmp_path)


@pytest.fixture
async def own(own_settings: Settings) -> AsyncGenerator[Services]:
    async with running_services(own_settings) as services:
        await pretend_worker(services)
        yield services


@asynccontextmanager
async def stopped(servers: Servers, name: str) -> AsyncGenerator[None]:
    """SIGSTOP to a server and all its processes: it takes connections, and answers nothing."""
    first = {child.name: child.pid for child in servers.embedded.children}[name]
    pids = [first, *children_of(first)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def children_of(pid: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def sent(services: Services) -> Job:
    job, _ = await services.intake.submit(await submission(services), body_of(upload_bytes()))
    return job


async def works_again(services: Services) -> bool:
    try:
        await services.cancellation.delete(await sent(services))
    except Unavailable:
        return False
    return True


async def test_a_keyholder_that_was_killed_takes_its_keys_along(own: Services, own_servers: Servers) -> None:
    """A waiting job fails with `key_lost`, its key's id takes no other key, and new jobs work."""
    job = await queued_job(own)
    (key_id,) = await refs(own, job.id, "key")
    incarnation = await keyholder_of(own).hello()
    own_servers.keyholder.stop(signal.SIGKILL)

    with pytest.raises(KeyholderUnavailable):
        await sent(own)
    own_servers.keyholder.start()
    await eventually(lambda: works_again(own))

    assert not await keyholder_of(own).has(bytes.fromhex(key_id))
    with pytest.raises(KeyholderUnavailable):
        await keyholder_of(own).put(bytes.fromhex(key_id), bytearray(32), ttl_s=60, incarnation=incarnation)
    await own.cancellation.delete(job)
    assert (await final(own, job)).open_copies == 0
    assert await keyholder_of(own).put(bytes.fromhex(key_id), bytearray(32), ttl_s=60) is PutAnswer.GONE


async def test_a_job_whose_key_is_lost_fails(own_settings: Settings, own_servers: Servers, tmp_path: Path) -> None:
    """The worker finds no key: `key_lost`, upload destroyed, receipt issued, and the next job succeeds."""
    async with running_services(own_settings) as broker:
        await pretend_worker(broker)
        job = await sent(broker)
        own_servers.keyholder.stop(signal.SIGKILL)
        own_servers.keyholder.start()
        async with slow_worker(broker, own_settings, tmp_path) as worker:
            done = await final(broker, job)
            assert (done.state, done.code) == ("failed", "key_lost")
            worker.open_gate()
            assert (await final(broker, await sent(broker))).state == "succeeded"


async def test_a_keyholder_that_is_away_holds_up_the_end(own: Services, own_servers: Servers) -> None:
    """Nothing is called shredded while nobody answers; when it is back the job ends by itself."""
    job = await claimed_job(own)
    settling = await own.stores.jobs.begin_settling(job, Outcome.FAILED, owner=own.lease.process.id)
    own_servers.keyholder.stop(signal.SIGKILL)
    try:
        assert await own.settler.settle_or_postpone(settling, let_go=held(job)) is None
        assert (await reread(own, job)).state == "settling"
    finally:
        own_servers.keyholder.start()
    assert (await final(own, job)).state == "failed"


async def test_a_blob_store_that_is_away_refuses(own: Services, own_settings: Settings) -> None:
    """No row, no key, no blob; and it works again when the store is back."""
    folder = Path(own_settings.blobs_url.removeprefix("file://"))
    keys = await keys_held(own)
    folder.rename(folder.with_name("away"))
    folder.write_text("a file where the folder was")
    try:
        with pytest.raises(BlobsUnavailable):
            await sent(own)
    finally:
        folder.unlink()
        folder.with_name("away").rename(folder)
    await eventually(lambda: _no_jobs(own_settings))
    assert await keys_held(own) == keys
    assert blobs(own_settings) == []
    assert await works_again(own)


async def _no_jobs(settings: Settings) -> bool:
    return await count(settings, "jobs") == 0


async def test_a_redis_that_hangs_refuses_in_time(own: Services, own_servers: Servers, own_settings: Settings) -> None:
    """It takes connections and answers nothing: refused within seconds, nothing is left, back by itself."""
    made = await submission(own)
    async with stopped(own_servers, "redis"):
        async with asyncio.timeout(6):
            with pytest.raises(QueueUnavailable):
                await own.intake.submit(made, body_of(upload_bytes()))
        assert await count(own_settings, "jobs") == 0
    await eventually(lambda: works_again(own))


async def test_a_job_is_settled_while_redis_hangs(own: Services, own_servers: Servers) -> None:
    """The word to the others is a hint; no job waits for it."""
    job = await claimed_job(own)
    async with stopped(own_servers, "redis"), asyncio.timeout(10):
        settling = await own.stores.jobs.begin_settling(job, Outcome.FAILED, owner=own.lease.process.id)
        assert (await own.settler.settle(settling, let_go=held(job))).state == "failed"


async def test_a_job_whose_bell_was_lost_runs(own_settings: Settings, tmp_path: Path) -> None:
    """Redis emptied between queueing and claiming: rung again, and run."""
    async with running_services(own_settings) as broker:
        await pretend_worker(broker)
        job = await sent(broker)
        await _emptied(broker)
        async with slow_worker(broker, own_settings, tmp_path) as worker:
            worker.open_gate()
            assert (await final(broker, job)).state == "succeeded"


async def _emptied(services: Services) -> None:
    redis = services.redis
    await redis.execute_command("FLUSHALL")  # pyright: ignore[reportUnknownMemberType]


async def test_a_postgres_that_hangs_refuses_in_time(
    own_settings: Settings, own_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections and answers nothing: StoreUnavailable, and the service comes back by itself."""
    monkeypatch.setattr("broker.store.database.COMMAND_TIMEOUT_S", 1.0)
    async with running_services(own_settings) as broker:
        await pretend_worker(broker)
        made = await submission(broker)
        async with stopped(own_servers, "postgres"), asyncio.timeout(8):
            with pytest.raises(StoreUnavailable):
                await broker.intake.submit(made, body_of(upload_bytes()))
        await eventually(lambda: works_again(broker))


async def test_who_gives_up_on_a_postgres_that_hangs_waits_no_longer(own: Services, own_servers: Servers) -> None:
    """Nor for the answer to the cancel of what was asked; what is asked later gets its answer."""
    loop, database = asyncio.get_running_loop(), own.stores.database
    await asyncio.gather(*(database.rows("SELECT 1") for _ in range(8)))
    async with stopped(own_servers, "postgres"):
        began_s = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await database.rows("SELECT 1")
        assert loop.time() - began_s < 2.0
    await eventually(lambda: works_again(own))


async def test_sessions_that_postgres_ends_are_replaced(own: Services, own_servers: Servers) -> None:
    """An administrator, or a backend that was killed: who is asking gets `store_unavailable` at most, and soon rows."""
    database = own.stores.database
    ended: list[object] = []
    for _ in range(100):
        asked = [database.rows("SELECT 1") for _ in range(4)]
        ended += await asyncio.gather(*asked, return_exceptions=True)
        await own_servers.databases.run_sql(OTHERS_OUT)
    failed = {type(one) for one in ended if isinstance(one, BaseException)}
    assert failed == {StoreUnavailable}
    await asyncio.sleep(0.1)  # until the loop has heard the last of it
    assert len(await asyncio.gather(*(database.rows("SELECT 1") for _ in range(4)))) == 4


async def test_postgres_and_redis_restarted(own_settings: Settings, own_servers: Servers, tmp_path: Path) -> None:
    """Both gone and back: refused meanwhile, nothing half-admitted, and what was queued runs to its end."""
    async with running_services(own_settings) as broker:
        await pretend_worker(broker)
        job, made = await sent(broker), await submission(broker)
        keys = await keys_held(broker)
        await own_servers.embedded.stop()
        try:
            with pytest.raises(StoreUnavailable):
                await broker.intake.submit(made, body_of(upload_bytes()))
        finally:
            await own_servers.embedded.start()
        await eventually(lambda: works_again(broker), within_s=20)
        assert await count(own_settings, "jobs", "state = 'receiving'") == 0
        assert await keys_held(broker) == keys
        async with slow_worker(broker, own_settings, tmp_path) as worker:
            worker.open_gate()
            assert (await final(broker, job)).state == "succeeded"


async def test_postgres_gone_while_a_body_comes_in(own: Services, own_servers: Servers, own_settings: Settings) -> None:
    """Lost in the middle of an upload: the client is told, and once Postgres is back nothing is left of it."""
    keys = await keys_held(own)
    going = asyncio.Event()

    async def body() -> AsyncGenerator[bytes]:
        yield upload_bytes(100_000)
        await own_servers.embedded.stop()
        going.set()
        yield os.urandom(100_000)

    try:
        with pytest.raises(StoreUnavailable):
            await own.intake.submit(await submission(own), body())
    finally:
        await own_servers.embedded.start()
    assert going.is_set()
    await eventually(lambda: _no_jobs(own_settings), within_s=20)
    assert blobs(own_settings) == []
    assert await keys_held(own) == keys


async def test_a_worker_survives_an_outage(own_settings: Settings, own_servers: Servers, tmp_path: Path) -> None:
    """Postgres and Redis restarted while a job runs: it ends as it should, run again if need be, once."""
    patient = msgspec.structs.replace(own_settings, lease_s=6.0)
    async with running_services(patient) as broker:
        await pretend_worker(broker)
        async with slow_worker(broker, patient, tmp_path) as worker:
            job = await sent(broker)
            await worker.has_begun(1)
            await own_servers.embedded.stop()
            await own_servers.embedded.start()
            worker.open_gate()
            done = await final(broker, job, within_s=30)
            assert done.state == "succeeded"
            assert await count(patient, "receipts", f"job_id = '{job.id}'") == 1

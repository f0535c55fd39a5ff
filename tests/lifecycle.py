"""What tests of the lifecycle do again and again: play the worker, wait for an end, look at what is left."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import msgspec

from broker.backup import BACKUPS
from broker.custody import Evidence, Held
from broker.jobs import Job, Outcome, Output
from broker.rights import ERASED
from broker.services import Services
from broker.settings import Settings
from broker.sweep import Sweep
from tests.stack import keyholder_of, pretend_worker, queued_job


async def eventually(predicate: Callable[[], Awaitable[object]], *, within_s: float = 30.0) -> None:
    """Ask until the answer is true; how long it may take is for a machine that does much else."""
    async with asyncio.timeout(within_s):
        while not await predicate():  # noqa: ASYNC110 - what is waited for happens elsewhere
            await asyncio.sleep(0.01)


async def claimed_job(services: Services, *, lease_s: float = 3600) -> Job:
    """A job that runs in a pretended worker, which renews nothing."""
    job = await queued_job(services)
    claimed = await services.stores.jobs.claim(job.id, await pretend_worker(services, lease_s=lease_s))
    assert claimed is not None
    return claimed


async def let_go(services: Services, job: Job) -> None:
    """The pretended worker has wiped what it held."""
    await services.stores.custody.release(job.id, held(job), Evidence.OVERWRITTEN)


def held(job: Job) -> Held:
    assert job.owner is not None
    return Held(process=job.owner, fence=job.fence)


async def settled(
    services: Services,
    job: Job,
    outcome: Outcome = Outcome.SUCCEEDED,
    *,
    code: str = "",
    outputs: Sequence[Output] = (),
) -> Job:
    """Decide and settle a job that a pretended worker runs, as that worker would."""
    settling = await services.stores.jobs.begin_settling(
        job, outcome, owner=services.lease.process.id, code=code, outputs=outputs
    )
    return await services.settler.settle(settling, let_go=held(job))


async def reread(services: Services, job: Job) -> Job:
    found = await services.stores.jobs.get(job.id)
    assert found is not None
    return found


async def final(services: Services, job: Job, *, within_s: float = 40.0) -> Job:
    """Wait for the final state, and see that the law was kept on the way."""
    await eventually(lambda: _is_final(services, job), within_s=within_s)
    found = await reread(services, job)
    copies = await services.stores.custody.copies(job.id)
    assert found.open_copies == 0
    assert all(not copy.is_open for copy in copies if copy.what != "output")
    assert await services.stores.receipts.latest(job.id)
    return found


async def _is_final(services: Services, job: Job) -> bool:
    return (await reread(services, job)).is_final


async def count(settings: Settings, table: str, where: str = "true") -> int:
    """Count rows, past all stores."""
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        return await connection.fetchval(f"SELECT count(*) FROM {table} WHERE {where}")
    finally:
        await connection.close()


async def rows_of(settings: Settings, query: str) -> list[asyncpg.Record]:
    """Look, past all stores."""
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


async def run_sql(settings: Settings, statement: str, *values: object) -> None:
    """Turn back a clock, past all stores."""
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


def blobs(settings: Settings) -> list[str]:
    """Every blob of the store, finished or not; apart from the names by which erasures and backups are remembered."""
    folder = Path(urlsplit(settings.blobs_url).path)
    return [path.name for path in folder.rglob("*") if path.is_file() and path.parent.name not in {ERASED, BACKUPS}]


async def keys_held(services: Services) -> int:
    return (await keyholder_of(services).stats()).held


async def is_empty(services: Services, settings: Settings, *, keys: int) -> bool:
    """No job, no custody row, no blob, and no more keys than before: those of earlier tests come to their end."""
    rows = await count(settings, "jobs") + await count(settings, "custody")
    return rows == 0 and not blobs(settings) and await keys_held(services) <= keys


async def refs(services: Services, job_id: UUID, holder: str) -> list[str]:
    """What the custody rows of one kind of holder point to."""
    return [copy.ref for copy in await services.stores.custody.copies(job_id) if copy.holder == holder]


def hasty(services: Services) -> Sweep:
    """A sweep under a profile that keeps no record at all."""
    retention = msgspec.structs.replace(services.policies.profile.retention, records_for_s=0)
    return Sweep(
        services.stores,
        settler=services.settler,
        purges=services.purges,
        lease=services.lease,
        every_s=60,
        retention=retention,
    )

"""Users with jobs for tests of erasure and export: one by one as workers leave them, or a thousand at once."""

from broker.crypto.chunked import KEY_BYTES
from broker.jobs import Job
from broker.rights import Request, RequestStatus, erasure_id
from broker.secret_memory import random_into
from broker.services import Services
from broker.settings import Settings
from broker.store.blobs import new_name
from broker.store.users import NewUser
from broker.submission import new_key_id
from tests.api_client import keep
from tests.checks import plant
from tests.lifecycle import count, eventually, reread, run_sql, settled
from tests.stack import body_of, pretend_worker, submission, upload_bytes

CLONE = """
WITH pattern AS (SELECT * FROM jobs WHERE id = $1), made AS (
    INSERT INTO jobs (id, public_id, user_id, operation, parameters, profile, pool, state, outcome, start_by, finish_by,
                      decided_at, finalized_at, outputs_until, charged)
    SELECT gen_random_uuid(), gen_random_uuid(), user_id, operation, parameters, profile, pool, state, outcome,
           start_by, finish_by, decided_at, finalized_at, outputs_until, charged
    FROM pattern, generate_series(1, $2)
    RETURNING id
), closed AS (
    INSERT INTO custody (job_id, domain, holder, what, ref, detail, fence, closed_at, evidence)
    SELECT made.id, domain, holder, what, ref, detail, fence, closed_at, evidence
    FROM made, custody WHERE custody.job_id = $1 AND custody.what <> 'output'
), noted AS (
    INSERT INTO receipts (job_id, revision, note) SELECT made.id, revision, note FROM made, receipts WHERE job_id = $1
)
SELECT id FROM made
"""
OUTPUT = """
WITH made AS (
    INSERT INTO custody (job_id, domain, holder, what, ref, detail, fence)
    SELECT new.job_id, 'ours', new.holder, 'output', new.ref, new.detail, 1
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS new (job_id, holder, ref, detail)
)
INSERT INTO outputs (job_id, n, blob, key_id, keyholder, incarnation, media_type, size_bytes, width, height)
SELECT job_id, 0, blob, key_id, $8, $9, 'image/png', 9, 2, 3
FROM unnest($5::uuid[], $6::text[], $7::bytea[]) AS new (job_id, blob, key_id)
"""
FIGURE = 1_000
SOON = "UPDATE requests SET resume_at = now() - interval '1 second' WHERE completed_at IS NULL"


async def minted(services: Services) -> NewUser:
    new = await services.stores.users.mint()
    plant(new.token)
    return new


async def queued(services: Services, user: NewUser) -> Job:
    new = await submission(services, user_id=user.user_id, token=user.token)
    return (await services.intake.submit(new, body_of(upload_bytes())))[0]


async def finished(services: Services, user: NewUser) -> Job:
    """A job with an output, as a worker leaves it."""
    job = await queued(services, user)
    await end_well(services, job)
    return await reread(services, job)


async def end_well(services: Services, job: Job) -> None:
    claimed = await services.stores.jobs.claim(job.id, await pretend_worker(services))
    assert claimed is not None
    await settled(services, claimed, outputs=[await keep(services, claimed, b"an output", n=0)])


async def request_of(services: Services, user: NewUser) -> Request:
    found = await services.stores.requests.find(erasure_id(user.token))
    assert found is not None
    return found


async def crowd(services: Services, user: NewUser, settings: Settings) -> None:
    """A thousand final jobs, each with an output: a blob that is there and a key that is held."""

    pattern = await finished(services, user)
    made = [row["id"] for row in await services.stores.database.rows(CLONE, pattern.id, FIGURE - 1)]
    kept_at = await services.stores.keys.pick()
    keyholder = services.stores.keys.at(kept_at.keyholder)
    names, key_ids = [new_name() for _ in made], [new_key_id() for _ in made]
    for name, key_id in zip(names, key_ids, strict=True):
        key = bytearray(KEY_BYTES)
        random_into(key)
        await keyholder.put(key_id, key, ttl_s=600)
        await services.stores.blobs.put(name, body_of(b"ciphertext"))
    await services.stores.database.rows(
        OUTPUT,
        [*made, *made],
        ["blob"] * len(made) + ["key"] * len(made),
        [*names, *(key_id.hex() for key_id in key_ids)],
        [""] * len(made) + [kept_at.detail] * len(made),
        made,
        names,
        key_ids,
        kept_at.keyholder,
        kept_at.incarnation,
    )
    assert await count(settings, "outputs") == FIGURE


async def completed(services: Services, user: NewUser, settings: Settings, *clocks: str, within_s: float = 30) -> None:
    """Let time pass until the erasure is over; `clocks` are statements that turn others than its own."""

    async def is_over() -> bool:
        for statement in (*clocks, SOON):
            await run_sql(settings, statement)
        return (await request_of(services, user)).status is RequestStatus.COMPLETED

    await eventually(is_over, within_s=within_s)

"""Erasure and export below HTTP: killed in the middle, stores and providers that are down, the laws, the alarm, figures."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import asyncpg
import msgspec
import pytest

from broker.errors import BlobsUnavailable
from broker.export import WITHHELD, export
from broker.jobs import Job, JobState
from broker.log import capture_log
from broker.metrics import render
from broker.rights import Request, RequestStatus, Right, erasure_id
from broker.services import Services
from broker.settings import Settings
from broker.store.blobs import BlobStore
from broker.store.files import statements
from broker.store.held import OF_JOB, OF_USER
from broker.store.users import NewUser
from policies.base import Facts, RefusalCode, Refuse
from policies.rights import Rights
from tests.checks import plant
from tests.emulators.base import broken
from tests.integration.test_purges import large
from tests.integration.test_sweep import hasty
from tests.lifecycle import blobs, count, eventually, keys_held, reread, rows_of, run_sql
from tests.relay import emulated_replicate, ended, relaying, replicate, route, sent, waiting
from tests.stack import body_of, keyholder_of, queued_job, submission, upload_bytes

SOON = "UPDATE requests SET resume_at = now() - interval '1 second' WHERE completed_at IS NULL"
DUE = "UPDATE attempts SET purge_at = now() - interval '1 second' WHERE purge_at IS NOT NULL"


@pytest.fixture
async def user(services: Services) -> NewUser:
    return await minted(services)


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
    from broker.custody import Held
    from broker.jobs import Outcome
    from tests.api_client import keep
    from tests.stack import pretend_worker

    claimed = await services.stores.jobs.claim(job.id, await pretend_worker(services))
    assert claimed is not None
    assert claimed.owner is not None
    made = [await keep(services, claimed, b"an output", n=0)]
    settling = await services.stores.jobs.begin_settling(
        claimed, Outcome.SUCCEEDED, owner=services.lease.process.id, outputs=made
    )
    await services.settler.settle(settling, let_go=Held(process=claimed.owner, fence=claimed.fence))


async def request_of(services: Services, user: NewUser) -> Request:
    found = await services.stores.requests.find(erasure_id(user.token))
    assert found is not None
    return found


async def completed(services: Services, user: NewUser, settings: Settings) -> None:
    """Let time pass until the erasure is over."""

    async def is_over() -> bool:
        await run_sql(settings, SOON)
        return (await request_of(services, user)).status is RequestStatus.COMPLETED

    await eventually(is_over, within_s=30)


async def begin(services: Services, user: NewUser) -> Request:
    request = await services.stores.erasures.begin(erasure_id(user.token), user.user_id, answer_within_days=30)
    assert request is not None
    return request


async def end_and_destroy(services: Services, user: NewUser) -> None:
    await begin(services, user)
    for job in await services.stores.erasures.live(user.user_id):
        await services.cancellation.delete(job)
    while copies := await services.stores.erasures.open_outputs(user.user_id):
        await services.settler.drop_outputs(copies)


async def release(services: Services, user: NewUser) -> None:
    await end_and_destroy(services, user)
    assert await services.stores.erasures.release(await begin(services, user))


async def delete_user(services: Services, user: NewUser) -> None:
    await release(services, user)
    assert await services.stores.erasures.delete_user(await begin(services, user))


@pytest.mark.parametrize("until", [begin, end_and_destroy, release, delete_user], ids=lambda step: step.__name__)
async def test_an_erasure_that_died_is_gone_on_with(
    services: Services, user: NewUser, settings: Settings, until: Callable[[Services, NewUser], Awaitable[object]]
) -> None:
    """Wherever whoever was asked has stopped, another process brings it to its end: no row, no blob, no key."""
    keys = await keys_held(services)
    await finished(services, user)
    await queued(services, user)
    await until(services, user)

    await completed(services, user, settings)
    assert await count(settings, "users", f"id = '{user.user_id}'") == 0
    assert await count(settings, "jobs") + await count(settings, "custody") == 0
    assert not blobs(settings)
    assert await keys_held(services) == keys


async def test_a_key_that_stays_keeps_its_user(
    services: Services, user: NewUser, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is ours and cannot be destroyed is not said to be gone; the others go, and it goes later."""
    await finished(services, user)
    stuck = (await services.stores.custody.outputs((await finished(services, user)).id))[0].key_id
    keyholder = keyholder_of(services)
    has = keyholder.has

    async def lying(key_id: bytes) -> bool:
        return key_id == stuck or await has(key_id)

    monkeypatch.setattr(keyholder, "has", lying)
    erased = await services.erasure.ask(user.token, user.user_id)
    assert (erased.request.status, erased.request.destroyed_at) == (RequestStatus.IN_PROGRESS, None)
    assert len(erased.receipts) == 1
    assert await count(settings, "users", f"id = '{user.user_id}'") == 1
    assert await count(settings, "jobs") == 1

    monkeypatch.undo()
    await completed(services, user, settings)
    assert await count(settings, "jobs") == 0


async def test_a_silent_blob_store_leaves_what_nobody_can_open(
    services: Services, user: NewUser, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user goes, the key is shredded, the request says that something is still there until it is deleted."""
    await finished(services, user)

    async def silent(store: BlobStore, name: str) -> None:
        raise BlobsUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(BlobStore, "destroy", silent)
        erased = await services.erasure.ask(user.token, user.user_id)
    assert (erased.request.status, erased.request.destroyed_at) == (RequestStatus.IN_PROGRESS, None)
    assert erased.request.user_id is None
    assert len(erased.receipts) == 1
    (left,) = await rows_of(settings, "SELECT user_id, fingerprint, parameters FROM jobs")
    assert (left["user_id"], left["fingerprint"]) == (None, b"")

    await services.sweep.records()
    await completed(services, user, settings)
    assert not blobs(settings)
    assert await count(settings, "jobs") == 0


@pytest.fixture
async def relayed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[tuple[Services, object]]:
    with emulated_replicate(monkeypatch) as provider:
        config = replicate(provider.url) + route("upscale", "[{ replicate = 1 }]")
        async with relaying(settings, tmp_path, config) as services:
            yield services, provider


async def test_a_provider_that_is_down_holds_up_nothing_of_ours(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of ours goes at once; its copy is pending, by name and word, until it answers; then the job goes too."""
    with emulated_replicate(monkeypatch) as provider:
        config = replicate(provider.url) + route("upscale", "[{ replicate = 1 }]")
        async with relaying(settings, tmp_path, config) as services:
            user = await minted(services)
            provider.next("delete", *[broken(500)] * 2)
            await ended(services, await sent(services, large(), user_id=user.user_id, token=user.token))

            erased = await services.erasure.ask(user.token, user.user_id)
            assert erased.request.status is RequestStatus.IN_PROGRESS
            assert erased.request.destroyed_at is not None
            assert len(erased.receipts) == 1
            assert (erased.request.expected_by - erased.request.received_at).total_seconds() > 3600
            assert await count(settings, "users", f"id = '{user.user_id}'") == 0
            assert not blobs(settings)
            known = await services.stores.requests.copies(erased.request.id)
            assert [(of.provider, of.evidence, of.copies) for of in known] == [("replicate", "purge_pending", 3)]
            assert all(of.until for of in known)

            async def is_over() -> bool:
                await run_sql(settings, DUE)
                await run_sql(settings, SOON)
                return (await request_of(services, user)).status is RequestStatus.COMPLETED

            await eventually(is_over, within_s=30)
            known = await services.stores.requests.copies(erased.request.id)
            assert {of.evidence: of.copies for of in known} == {"deleted_by_api": 1, "expires_by": 2}
            assert not provider.files
            assert await count(settings, "jobs") + await count(settings, "attempts") == 0


async def test_a_job_at_a_provider_that_is_down_is_erased_all_the_same(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs there and nobody can stop it: here it is settled and the user goes, there it is pending, then unknown."""
    with emulated_replicate(monkeypatch, *["processing"] * 500) as provider:
        config = replicate(provider.url) + route("upscale", "[{ replicate = 1 }]")
        async with relaying(settings, tmp_path, config) as services:
            user = await minted(services)
            job = await sent(services, large(), user_id=user.user_id, token=user.token)
            await waiting(services, job)
            for call in ("cancel", "delete", "poll"):
                provider.next(call, *[broken(500)] * 200)

            erased = await services.erasure.ask(user.token, user.user_id)
            assert erased.request.destroyed_at is not None
            assert await count(settings, "users", f"id = '{user.user_id}'") == 0
            assert not blobs(settings)
            known = await services.stores.requests.copies(erased.request.id)
            assert {of.evidence for of in known} == {"purge_pending"}

            late = DUE.replace("SET", "SET purge_until = now() - interval '1 second',")

            async def is_over() -> bool:
                await run_sql(settings, late)
                await run_sql(settings, SOON)
                return (await request_of(services, user)).status is RequestStatus.COMPLETED

            await eventually(is_over, within_s=40)
            known = await services.stores.requests.copies(erased.request.id)
            assert {(of.provider, of.evidence) for of in known} == {("replicate", "unknown")}
            assert await count(settings, "jobs") == 0


async def test_a_request_outlives_its_user_and_goes_at_its_time(
    services: Services, user: NewUser, settings: Settings
) -> None:
    """Without a user it names nobody; after `records_for_s` it is deleted, and not before."""
    await services.stores.requests.add(user.user_id, Right.ACCESS, answer_within_days=30)
    erased = await services.erasure.ask(user.token, user.user_id)
    (row,) = await rows_of(settings, "SELECT id, user_id FROM requests")
    assert (row["id"], row["user_id"]) == (erased.request.id, None)
    await services.sweep.records()
    assert await count(settings, "requests") == 1
    await hasty(services).records()
    assert await count(settings, "requests") == 0


async def test_an_erasure_that_takes_too_long_rings(services: Services, user: NewUser, settings: Settings) -> None:
    """m2r-4, headpix-3, xpictures-8: past its bound an open request is an error in the log, and a figure above 0."""
    from broker.api.operator import take_snapshot

    await begin(services, user)
    await services.sweep.records()
    services.metrics.show(await take_snapshot(services))
    assert b"lethe_requests_overdue 0.0" in render(services.metrics.registry)

    await run_sql(settings, "UPDATE requests SET answer_by = now() - interval '1 second'")
    services.metrics.show(await take_snapshot(services))
    assert b"lethe_requests_overdue 1.0" in render(services.metrics.registry)
    with capture_log() as lines:
        await services.sweep.records()
    (rung,) = [line for line in map(str, lines) if "requests_overdue" in line]
    assert "error" in rung


@pytest.mark.parametrize("days", [4, 14, 30, 60])
async def test_the_bound_is_the_profiles(services: Services, user: NewUser, days: int) -> None:
    """By when a request has to be answered is received_at and so many days."""
    request = await services.stores.erasures.begin(erasure_id(user.token), user.user_id, answer_within_days=days)
    assert request is not None
    assert (request.answer_by - request.received_at).days == days


def test_refusals_of_rights_are_values() -> None:
    """Erasing before restricted, and a user who asked for neither is let in."""
    policy = Rights()
    assert policy.admit(Facts(operation="noop")) is None
    for asked, code in ({"is_restricted": True}, RefusalCode.RESTRICTED), ({"is_erasing": True}, RefusalCode.ERASING):
        refusal = policy.admit(Facts(operation="noop", **asked))
        assert isinstance(refusal, Refuse)
        assert refusal.code is code


async def test_postgres_lets_no_open_copy_lose_its_user(services: Services, user: NewUser, settings: Settings) -> None:
    """Whatever the code does: a job with an open output is neither deleted nor detached, and one that runs is not either."""
    job = await finished(services, user)
    await begin(services, user)
    detach = "UPDATE jobs SET user_id = NULL, erased_by = (SELECT id FROM requests) WHERE id = $1"
    for statement in (detach, "DELETE FROM jobs WHERE id = $1"):
        with pytest.raises(asyncpg.CheckViolationError):
            await run_sql(settings, statement, job.id)
    await services.settler.destroy_outputs(job.id)
    with pytest.raises(asyncpg.CheckViolationError):
        await run_sql(settings, "UPDATE jobs SET user_id = NULL WHERE id = $1", job.id)
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await run_sql(settings, "DELETE FROM users WHERE id = $1", user.user_id)
    await run_sql(settings, detach, job.id)


async def test_everything_that_is_about_a_user_is_exported_or_withheld(settings: Settings) -> None:
    """A new table or column has to be named in sql/held.sql, or withheld for a reason."""
    refers = """
        SELECT DISTINCT child.relname AS name FROM pg_constraint
        JOIN pg_class AS child ON child.oid = conrelid JOIN pg_class AS parent ON parent.oid = confrelid
        WHERE contype = 'f' AND parent.relname IN ('users', 'accounts', 'jobs')
    """
    about = {row["name"] for row in await rows_of(settings, refers)} | {"users"}
    assert about == {"users", "jobs", *OF_USER, *OF_JOB}
    withheld = {column for of in WITHHELD for column in of.columns}
    columns = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    for row in await rows_of(settings, columns):
        table, column = row["table_name"], row["column_name"]
        if table in about and column not in {"user_id", "job_id"} and f"{table}.{column}" not in withheld:
            block = statements("held")["user" if table == "users" else table]
            words = block.replace(",", " ").replace(".", " ").split()
            assert column in words, f"{table}.{column}"


CLONE = """
WITH pattern AS (SELECT * FROM jobs WHERE id = $1), made AS (
    INSERT INTO jobs (id, public_id, user_id, operation, parameters, profile, pool, state, outcome, start_by, finish_by,
                      decided_at, finalized_at, outputs_until, charged)
    SELECT gen_random_uuid(), gen_random_uuid(), user_id, operation, parameters, profile, pool, state, outcome, start_by,
           finish_by, decided_at, finalized_at, outputs_until, charged
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


async def crowd(services: Services, user: NewUser, settings: Settings) -> None:
    """A thousand final jobs, each with an output: a blob that is there and a key that is held."""
    from broker.crypto.chunked import KEY_BYTES
    from broker.secret_memory import random_into
    from broker.store.blobs import new_name
    from broker.submission import new_key_id

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


async def test_a_thousand_jobs_are_exported_and_erased_in_seconds(
    services: Services, user: NewUser, settings: Settings, record_property: Callable[[str, object], None]
) -> None:
    """Export in 5 s and 100 MB, erasure of 1,000 jobs with 1,000 outputs in 10 s; receipts come back, nothing stays."""
    keys = await keys_held(services)
    await crowd(services, user, settings)

    held = await services.stores.held.user(user.user_id)
    assert held is not None
    request = await services.stores.requests.add(user.user_id, Right.ACCESS, answer_within_days=30)
    began_s, size, tail = time.monotonic(), 0, b""
    async for piece in export(services.stores.held, held, request):
        size, tail = size + len(piece), piece
    export_s = time.monotonic() - began_s
    assert tail.endswith(b'"is_complete":true}\n')

    tracemalloc.start()
    async for _ in export(services.stores.held, held, request):
        pass
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    began_s = time.monotonic()
    erased = await services.erasure.ask(user.token, user.user_id)
    erasure_s = time.monotonic() - began_s
    print(f"export {export_s:.2f} s, {size} bytes, peak {peak_bytes} bytes; erasure {erasure_s:.2f} s")
    assert erased.request.status is RequestStatus.COMPLETED
    assert len(erased.receipts) == FIGURE
    assert await count(settings, "jobs") + await count(settings, "custody") + await count(settings, "outputs") == 0
    assert not blobs(settings)
    assert await keys_held(services) == keys
    assert export_s <= 5
    assert peak_bytes <= 100_000_000
    assert erasure_s <= 10

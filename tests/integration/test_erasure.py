"""Erasure below HTTP: killed in the middle, stores and providers that are down, the laws, and the alarm."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from broker.api.operator import take_snapshot
from broker.errors import BlobsUnavailable, UploadSuperseded
from broker.log import capture_log
from broker.metrics import render
from broker.rights import Request, RequestStatus, Right, erasure_id
from broker.services import Services
from broker.settings import Settings
from broker.store.blobs import BlobStore
from broker.store.users import NewUser
from policies.base import Facts, RefusalCode, Refuse
from policies.rights import Rights
from tests.emulators.base import broken
from tests.erasing import completed, finished, minted, queued
from tests.integration.test_purges import large
from tests.integration.test_sweep import hasty
from tests.lifecycle import blobs, count, eventually, keys_held, rows_of, run_sql
from tests.relay import emulated_replicate, ended, relaying, replicate, route, sent, waiting
from tests.stack import body_of, keyholder_of, submission, upload_bytes

DUE = "UPDATE attempts SET purge_at = now() - interval '1 second' WHERE purge_at IS NOT NULL"
TOLD = "INSERT INTO notifications (job_id, channel, target) SELECT id, 'webhook', 'https://app.example' FROM jobs"
"""Somebody is to be told that each job has ended."""


@pytest.fixture
async def user(services: Services) -> NewUser:
    return await minted(services)


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
    assert await keys_held(services) <= keys


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


async def test_an_unfinished_upload_at_a_silent_store_keeps_its_user(
    services: Services, user: NewUser, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there is known of until it is deleted, and only then is the user said to be erased."""
    keys = await keys_held(services)

    async def silent(store: BlobStore, name: str) -> None:
        raise BlobsUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(BlobStore, "destroy", silent)
        sending = asyncio.create_task(coming_in(services, user))
        await eventually(lambda: count(settings, "jobs", "state = 'receiving'"))
        erased = await services.erasure.ask(user.token, user.user_id)
        with pytest.raises(UploadSuperseded):
            await sending
        await services.intake.aclose()
    assert (erased.request.status, erased.request.destroyed_at) == (RequestStatus.IN_PROGRESS, None)
    assert await count(settings, "users", f"id = '{user.user_id}'") == 1
    (blob,) = [copy["ref"] for copy in await rows_of(settings, "SELECT ref FROM custody WHERE holder = 'blob'")]
    await services.stores.blobs.put(blob, body_of(b"ciphertext"))

    await services.sweep.records()
    await completed(services, user, settings)
    assert not blobs(settings)
    assert await count(settings, "users", f"id = '{user.user_id}'") + await count(settings, "jobs") == 0
    assert await keys_held(services) <= keys


async def coming_in(services: Services, user: NewUser) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield upload_bytes(200_000)
        await asyncio.Event().wait()

    await services.intake.submit(await submission(services, user_id=user.user_id, token=user.token), stalled())


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
            await run_sql(settings, TOLD)

            erased = await services.erasure.ask(user.token, user.user_id)
            assert erased.request.status is RequestStatus.IN_PROGRESS
            assert erased.request.destroyed_at is not None
            assert len(erased.receipts) == 1
            assert (await count(settings, "jobs"), await count(settings, "notifications")) == (1, 0)
            assert (erased.request.expected_by - erased.request.received_at).total_seconds() > 3600
            assert await count(settings, "users", f"id = '{user.user_id}'") == 0
            assert not blobs(settings)
            known = await services.stores.requests.copies(erased.request.id)
            assert [(of.provider, of.evidence, of.copies) for of in known] == [("replicate", "purge_pending", 3)]
            assert all(of.until for of in known)

            await completed(services, user, settings, DUE)
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
            await completed(services, user, settings, late, within_s=40)
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
    both = Facts(operation="noop", is_restricted=True, is_erasing=True)
    restricted = Facts(operation="noop", is_restricted=True)
    for facts, code in (both, RefusalCode.ERASING), (restricted, RefusalCode.RESTRICTED):
        refusal = policy.admit(facts)
        assert isinstance(refusal, Refuse)
        assert refusal.code is code


async def test_postgres_lets_no_open_copy_lose_its_user(services: Services, user: NewUser, settings: Settings) -> None:
    """Whatever the code does: a job with an open output is neither deleted nor detached, and keeps its user's row."""
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

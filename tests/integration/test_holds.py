"""Legal holds below HTTP: records stay, uploads, outputs and keys do not, and Postgres repeats the law."""

import asyncio

import asyncpg
import pytest

from broker.account_errors import HoldConflict, HoldNotFound, SecondOperatorRequired, UserNotFound
from broker.api.operator import take_snapshot
from broker.devices import Kem
from broker.rights import RequestStatus, Right
from broker.services import Services
from broker.settings import Settings
from broker.store.holds import Hold
from broker.store.users import NewUser
from tests.erasing import completed, finished, minted, queued, request_of
from tests.integration.test_sweep import hasty
from tests.lifecycle import blobs, count, eventually, keys_held, run_sql


@pytest.fixture
async def user(services: Services) -> NewUser:
    return await minted(services)


async def held(services: Services, user: NewUser) -> Hold:
    """A hold in force."""
    hold = await services.stores.holds.propose(user.user_id, "court/17", operator="alice")
    return await services.stores.holds.confirm(hold.id, operator="bob")


async def test_a_hold_keeps_records_until_it_ends(services: Services, user: NewUser, settings: Settings) -> None:
    """headpix-4: jobs, custody, receipts and the idle user stay past their time; then they go. Outputs go as ever."""
    job, other = await finished(services, user), await minted(services)
    await finished(services, other)
    hold = await held(services, user)
    await run_sql(settings, "UPDATE jobs SET outputs_until = now() - interval '1 s'")
    await run_sql(settings, "UPDATE users SET last_seen_on = now() - interval '9 years'")
    await services.sweep.once()
    await eventually(lambda: _is_zero(settings, "custody", "closed_at IS NULL"))

    await hasty(services).records()
    await hasty(services).records()
    assert await services.stores.receipts.latest(job.id)
    assert await count(settings, "jobs") == 1
    assert await count(settings, "users") == 1
    assert [path for path in blobs(settings) if len(path) == 32] == []

    await services.stores.holds.end(hold.id, operator="alice")
    await hasty(services).records()
    await hasty(services).records()
    assert await count(settings, "jobs") + await count(settings, "users") == 0


async def _is_zero(settings: Settings, table: str, where: str) -> bool:
    return await count(settings, table, where) == 0


async def test_an_erasure_on_hold_leaves_records_alone(services: Services, user: NewUser, settings: Settings) -> None:
    """headpix-4: live jobs, outputs, keys and devices go at once; records wait for the end of the hold, and then go."""
    keys = await keys_held(services)
    await finished(services, user)
    await services.stores.devices.add(user.user_id, Kem.X25519, bytes([9]) + bytes(31))
    await queued(services, user)
    hold = await held(services, user)

    erased = await services.erasure.ask(user.token, user.user_id)
    assert (erased.request.status, erased.request.destroyed_at) == (RequestStatus.IN_PROGRESS, None)
    assert erased.receipts == []
    assert await count(settings, "custody", "closed_at IS NULL") == 0
    assert await keys_held(services) <= keys
    assert blobs(settings) == []
    assert await count(settings, "devices") == 0
    assert await count(settings, "jobs", "finalized_at IS NOT NULL") == 2
    assert await count(settings, "receipts") == 2

    await run_sql(settings, "UPDATE requests SET answer_by = now() - interval '1 second'")
    assert (await take_snapshot(services)).overdue_requests == 0  # the hold is why
    assert await services.stores.erasures.due() == []

    await services.stores.holds.end(hold.id, operator="bob")
    await completed(services, user, settings)
    assert await count(settings, "users", f"id = '{user.user_id}'") == 0
    assert await count(settings, "jobs") + await count(settings, "holds") == 0
    assert (await request_of(services, user)).destroyed_at is not None


async def test_an_upload_under_a_hold_goes_with_its_job(services: Services, user: NewUser, settings: Settings) -> None:
    """headpix-4: a hold keeps no upload and no key: an unfinished one is discarded, a job settles as ever."""
    await held(services, user)
    keys = await keys_held(services)
    job = await finished(services, user)
    assert job.open_copies == 0
    await services.gallery.destroy_all(user.user_id)
    assert await keys_held(services) <= keys
    assert blobs(settings) == []


async def test_a_hold_needs_two_operators(services: Services, user: NewUser, settings: Settings) -> None:
    """xpictures-4: who proposed it cannot confirm it, in code or in Postgres; until then it keeps nothing."""
    holds = services.stores.holds
    hold = await holds.propose(user.user_id, "court/17", operator="alice")
    assert await holds.in_force(user.user_id) == []
    with pytest.raises(SecondOperatorRequired):
        await holds.confirm(hold.id, operator="alice")
    with pytest.raises(asyncpg.CheckViolationError, match="two_operators"):
        await run_sql(settings, "UPDATE holds SET confirmed_by = proposed_by, confirmed_at = now()")
    await finished(services, user)
    await run_sql(settings, "UPDATE jobs SET outputs_until = now() - interval '1 s'")
    await services.sweep.once()
    await hasty(services).records()
    assert await count(settings, "jobs") == 0

    confirmed = await holds.confirm(hold.id, operator="bob")
    assert (confirmed.state, await holds.confirm(hold.id, operator="bob")) == ("in_force", confirmed)
    with pytest.raises(HoldConflict):
        await holds.confirm(hold.id, operator="carol")


async def test_a_hold_that_nobody_confirms_in_time_lapses(services: Services, user: NewUser) -> None:
    """A day later it cannot be confirmed; one that was taken back cannot either."""
    holds = services.stores.holds
    hold = await holds.propose(user.user_id, "court/17", operator="alice")
    # What was proposed does not change: a proposal of yesterday is made, not turned back.
    late = (
        "INSERT INTO holds SELECT gen_random_uuid(), user_id, 'late', 'alice', now(), now() - interval '1 s' FROM holds"
    )
    await run_sql(services.settings, late)
    (lapsed,) = [one for one in await holds.all() if one.reference == "late"]
    assert lapsed.state == "lapsed"
    await holds.end(hold.id, operator="alice")
    for one in (hold, lapsed):
        with pytest.raises(HoldConflict):
            await holds.confirm(one.id, operator="bob")


async def test_what_is_not_there_is_said(services: Services, user: NewUser) -> None:
    """No such user, no such hold."""
    holds = services.stores.holds
    with pytest.raises(UserNotFound):
        await holds.propose("usr_nobody", "court/17", operator="alice")
    nobody = (await holds.propose(user.user_id, "x", operator="alice")).id
    await run_sql(services.settings, "DELETE FROM holds")
    for step in (holds.confirm, holds.end):
        with pytest.raises(HoldNotFound):
            await step(nobody, operator="bob")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM jobs",
        "DELETE FROM users",
        "UPDATE jobs SET user_id = NULL, erased_by = (SELECT id FROM requests LIMIT 1)",
        "UPDATE holds SET reference = 'other'",
        "UPDATE holds SET confirmed_at = NULL, confirmed_by = NULL",
        "INSERT INTO holds SELECT gen_random_uuid(), user_id, 'x', 'alice', now(), now(), 'bob', now() FROM holds",
    ],
)
async def test_postgres_keeps_what_is_held(
    services: Services, user: NewUser, settings: Settings, statement: str
) -> None:
    """headpix-4: whatever the code does, no record under a hold is deleted, and no hold is made by one statement."""
    await finished(services, user)
    await services.gallery.destroy_all(user.user_id)
    await services.stores.requests.add(user.user_id, Right.ACCESS, answer_within_days=30)
    await held(services, user)
    with pytest.raises((asyncpg.CheckViolationError, asyncpg.ForeignKeyViolationError)):
        await run_sql(settings, statement)


async def test_many_confirm_at_once(services: Services, user: NewUser) -> None:
    """One does; the others hear that it is confirmed."""
    hold = await services.stores.holds.propose(user.user_id, "court/17", operator="alice")
    answers = await asyncio.gather(
        *(services.stores.holds.confirm(hold.id, operator=f"op{n}") for n in range(10)), return_exceptions=True
    )
    assert sum(isinstance(answer, Hold) for answer in answers) == 1
    assert sum(isinstance(answer, HoldConflict) for answer in answers) == 9

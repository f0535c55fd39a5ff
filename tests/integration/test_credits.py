"""Credits: held when a job is queued, taken once when it has succeeded, released otherwise, and never below zero."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import asyncpg
import msgspec
import pytest

from broker.account_errors import CreditsRequired, UserNotFound
from broker.jobs import Job, Outcome
from broker.services import Services
from broker.settings import Settings
from broker.store.credits import Account
from tests.api_client import keep
from tests.lifecycle import run_sql, settled
from tests.profiles import settings_under
from tests.stack import body_of, pretend_worker, running_services, submission, upload_bytes

PRICE = 3


@pytest.fixture
async def priced(settings: Settings, tmp_path: Path) -> AsyncGenerator[Services]:
    """A broker whose `noop` costs three credits."""
    prices = f"[credits]\nprices = {{ noop = {PRICE} }}"
    async with running_services(settings_under(settings, tmp_path, prices, jobs_at_once="100")) as services:
        await pretend_worker(services)
        yield services


async def funded(services: Services, amount: int) -> str:
    user_id = (await services.stores.users.mint()).user_id
    assert await services.stores.credits.grant(user_id, amount, reference="order-1")
    return user_id


async def sent(services: Services, user_id: str) -> Job:
    new = msgspec.structs.replace(await submission(services), user_id=user_id)
    job, _ = await services.intake.submit(new, body_of(upload_bytes()))
    return job


async def ended(services: Services, job: Job, outcome: Outcome) -> Job:
    """Run a job to its end as a worker would."""
    running = await services.stores.jobs.claim(job.id, await pretend_worker(services))
    assert running is not None
    outputs = [await keep(services, running, b"made", n=0)] if outcome is Outcome.SUCCEEDED else []
    return await settled(services, running, outcome, outputs=outputs)


async def account(services: Services, user_id: str) -> tuple[int, int]:
    found = await services.stores.credits.account(user_id)
    return found.credits, found.held


async def kinds(services: Services, user_id: str) -> list[str]:
    return [entry.kind for entry in reversed(await services.stores.credits.entries(user_id, limit=100))]


@pytest.mark.parametrize(
    ("outcome", "left", "last"),
    [
        (Outcome.SUCCEEDED, 7, "captured"),
        (Outcome.FAILED, 10, "released"),
        (Outcome.CANCELED, 10, "released"),
        (Outcome.EXPIRED, 10, "released"),
    ],
)
async def test_a_job_holds_its_price_and_pays_it_on_success_alone(
    priced: Services, outcome: Outcome, left: int, last: str
) -> None:
    """Held while it is under way; taken once, or released, in the write that makes it final."""
    user_id = await funded(priced, 10)
    job = await sent(priced, user_id)
    assert (job.price, await account(priced, user_id)) == (PRICE, (10, PRICE))

    final = await ended(priced, job, outcome)

    assert final.charged == (outcome is Outcome.SUCCEEDED)
    assert await account(priced, user_id) == (left, 0)
    assert await kinds(priced, user_id) == ["granted", "held", last]


async def test_an_output_that_is_lost_is_paid_back_once(priced: Services) -> None:
    """Before its time is up, however often it is asked for; afterwards nothing comes back."""
    user_id = await funded(priced, 10)
    job = await ended(priced, await sent(priced, user_id), Outcome.SUCCEEDED)
    late = await ended(priced, await sent(priced, user_id), Outcome.SUCCEEDED)
    await run_sql(priced.settings, "UPDATE jobs SET outputs_until = now() - interval '1 s' WHERE id = $1", late.id)

    for lost in (job, job, late):
        await priced.stores.custody.output_lost(lost.id, 0)

    assert await account(priced, user_id) == (7, 0)
    assert (await kinds(priced, user_id))[-1] == "refunded"
    assert (await kinds(priced, user_id)).count("refunded") == 1


async def test_fifty_at_once_never_spend_more_than_there_is(priced: Services) -> None:
    """Ten credits pay for three jobs, however many come through the door together; the others leave nothing."""
    user_id = await funded(priced, 10)

    answers = await asyncio.gather(*(sent(priced, user_id) for _ in range(50)), return_exceptions=True)

    jobs = [answer for answer in answers if isinstance(answer, Job)]
    assert len(jobs) == 3
    assert {type(answer) for answer in answers if not isinstance(answer, Job)} == {CreditsRequired}
    assert await account(priced, user_id) == (10, 9)
    await asyncio.gather(*(ended(priced, job, Outcome.SUCCEEDED) for job in jobs))
    assert await account(priced, user_id) == (1, 0)


async def test_without_enough_nothing_is_read(priced: Services) -> None:
    """The refusal comes before the body, with the numbers, also where nothing was ever granted."""
    for user_id, free in ((await funded(priced, 2), 2), ((await priced.stores.users.mint()).user_id, 0)):
        with pytest.raises(CreditsRequired, match=f"noop costs 3 credits, and {free} are free"):
            await sent(priced, user_id)


async def test_a_grant_counts_once(priced: Services) -> None:
    """The same reference again adds nothing, from ten connections at once; nobody else has that user."""
    user_id = await funded(priced, 10)
    store = priced.stores.credits
    answers = await asyncio.gather(*(store.grant(user_id, 5, reference="order-2") for _ in range(10)))
    assert sorted(answers) == [False] * 9 + [True]
    assert await store.account(user_id) == Account(credits=15, held=0)
    with pytest.raises(UserNotFound):
        await store.grant("usr_nobody", 5, reference="order-3")


async def test_what_costs_nothing_needs_no_account(services: Services) -> None:
    """A profile without prices: no entry, no account."""
    user_id = (await services.stores.users.mint()).user_id
    job = await sent(services, user_id)
    assert job.price == 0
    assert await kinds(services, user_id) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE credit_entries SET credits = 1",
        "UPDATE credit_entries SET kind = 'released', reference = NULL",
        "UPDATE accounts SET held = 11",
        "UPDATE accounts SET credits = -1",
    ],
)
async def test_postgres_keeps_the_ledger(priced: Services, statement: str) -> None:
    """An entry stays as it is, and no account goes below zero, whoever writes."""
    await funded(priced, 10)
    with pytest.raises(asyncpg.CheckViolationError):
        await run_sql(priced.settings, statement)


async def test_entries_outlive_the_record_of_their_job(priced: Services) -> None:
    """Once the job is forgotten its entries say what was paid, and not for which job; they go with their user."""
    user_id = await funded(priced, 10)
    await ended(priced, await sent(priced, user_id), Outcome.FAILED)
    assert await priced.stores.jobs.forget(records_for_s=0) == 1

    entries = await priced.stores.credits.entries(user_id, limit=9)
    assert [(entry.kind, entry.job) for entry in entries] == [("released", None), ("held", None), ("granted", None)]
    await run_sql(priced.settings, "DELETE FROM users")
    assert await priced.stores.credits.entries(user_id, limit=9) == []

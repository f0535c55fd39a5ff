"""Attacks on the relay: providers that lie, lose or half-answer what they are asked, and workers that come late."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from broker.attempts import Attempt, AttemptState
from broker.custody import What
from broker.jobs import Job, JobState, Outcome
from broker.purges import Purges
from broker.services import Services
from broker.settings import Settings
from broker.slots import LIFETIME_S
from broker.store.attempts import NewAttempt
from providers.base import Deletes, Exposure, Handle, Part, Progress, Purge, Snapshot
from providers.failures import FailureKind, ProviderFailure
from tests.desk import DESK, Desk, config, own_desk
from tests.lifecycle import claimed_job, count, eventually, let_go, run_sql
from tests.relay import (
    attempts,
    ended,
    receipt,
    relaying,
    route,
    running_worker,
    sent,
    settings_with,
    theirs,
    waiting,
    words,
)
from tests.stack import keyholder_of, pretend_worker, running_services

SOON = "UPDATE attempts SET purge_at = now() - interval '1 second' WHERE purge_at IS NOT NULL"


CROWD = """
INSERT INTO jobs (id, public_id, user_id, operation, parameters, profile, pool, state, queued_at, start_by, finish_by)
SELECT gen_random_uuid(), gen_random_uuid(), (SELECT id FROM users LIMIT 1), 'noop', '{}', 'minimal', 'elsewhere',
       'queued', now() - interval '1 minute', now() + interval '1 hour', now() + interval '1 hour'
FROM generate_series(1, 60)
"""


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> type[Desk]:
    """A provider of this test's own."""
    return own_desk(monkeypatch)


@asynccontextmanager
async def at_the_desk(settings: Settings, folder: Path, *, tries: int = 4) -> AsyncGenerator[Services]:
    async with relaying(settings, folder, config(tries=tries)) as services:
        yield services


async def revised(services: Services, job: Job, settings: Settings) -> None:
    async def is_there() -> bool:
        await run_sql(settings, SOON)
        return (await receipt(services, job)).revision >= 2

    await eventually(is_there, within_s=15)


UNSENT = ProviderFailure(FailureKind.NETWORK, "ConnectError", is_unsent=True)
LOST_ANSWER = ProviderFailure(FailureKind.UNCERTAIN, "ReadError")


@pytest.mark.parametrize(
    "then", [UNSENT, ProviderFailure(FailureKind.OVERLOADED, "status_503"), ProviderFailure(FailureKind.AUTH, "401")]
)
async def test_an_order_that_may_have_arrived_stays_uncertain_whatever_comes_after(
    settings: Settings, tmp_path: Path, desk: type[Desk], then: ProviderFailure
) -> None:
    """The answer is lost, the next try refused or not sent: the rows stay, it is stopped, nobody else is paid."""
    desk.script["submit"] = [LOST_ANSWER, then]

    async with at_the_desk(settings, tmp_path) as services:
        job = await ended(services, await sent(services))

        assert (job.state, job.code) == (JobState.FAILED, "provider_uncertain")
        assert len(await attempts(services, job)) == 1
        assert len(await theirs(services, job)) == 3
        assert job.cost_usd == pytest.approx(0.25)
        assert "cancel" in desk.calls


async def test_an_adapter_that_breaks_in_a_purge_ends_nothing_else(
    settings: Settings, tmp_path: Path, desk: type[Desk]
) -> None:
    """What no adapter should raise is `pending`, and the loop that purges lives on."""
    done = Snapshot(progress=Progress.SUCCEEDED)
    desk.script["submit"] = [done]
    desk.script["purge"] = [KeyError("surprise"), KeyError("surprise"), Purge(deleted=frozenset(Part))]

    async with at_the_desk(settings, tmp_path, tries=1) as services:
        job = await ended(services, await sent(services), within_s=9)

        assert job.provider_copies == "pending"
        await revised(services, job, settings)
        assert set((await words(services, job)).values()) == {"deleted_by_api"}


async def test_an_order_that_goes_on_is_not_called_deleted(
    settings: Settings, tmp_path: Path, desk: type[Desk]
) -> None:
    """It cannot be stopped, and still makes an output: `pending` until it has ended, and only then purged."""
    desk.script["cancel"] = [False]

    async with at_the_desk(settings, tmp_path) as services:
        job = await ended(services, await sent(services, finish_within_s=2.0))

        assert (job.state, job.provider_copies) == (JobState.EXPIRED, "pending")
        await run_sql(settings, SOON)
        # Asked once more while it still runs: it is asked again in a minute, whatever it said that it deleted.
        await eventually(lambda: count(settings, "attempts", "purge_at > now() + interval '45 seconds'"))
        assert set((await words(services, job)).values()) == {"purge_pending"}
        desk.script["poll"] = [Snapshot(progress=Progress.SUCCEEDED)]
        await revised(services, job, settings)
        assert set((await words(services, job)).values()) == {"deleted_by_api"}


async def test_an_order_that_failed_for_want_of_room_is_not_waited_for(
    settings: Settings, tmp_path: Path, desk: type[Desk]
) -> None:
    """OVERLOADED as the end of the order (out of memory over there) is a failure, and no question to be repeated."""
    desk.script["poll"] = [ProviderFailure(FailureKind.OVERLOADED, "out_of_memory")]

    async with at_the_desk(settings, tmp_path, tries=1) as services:
        job = await ended(services, await sent(services), within_s=10)

        assert (job.state, job.code) == (JobState.FAILED, "provider_overloaded")
        assert desk.calls.count("poll") == 1


async def test_a_long_queue_in_one_pool_hides_nobody_in_another(
    settings: Settings, tmp_path: Path, desk: type[Desk]
) -> None:
    """A job that waits for its time is rung for, however many older ones wait for a pool that nobody works at."""
    desk.script["submit"] = [
        ProviderFailure(FailureKind.RATE_LIMITED, after_s=10.5),
        ProviderFailure(FailureKind.CONTENT_REJECTED),
    ]
    async with at_the_desk(settings, tmp_path) as services:
        job = await sent(services)
        await run_sql(settings, CROWD)

        assert (await ended(services, job, within_s=25)).code == "content_rejected"


async def test_a_busy_gateway_says_nothing_of_the_order(settings: Settings, tmp_path: Path, desk: type[Desk]) -> None:
    """503 to a question is asked again."""
    busy = ProviderFailure(FailureKind.OVERLOADED, "status_503", is_unanswered=True)
    desk.script["poll"] = [busy, ProviderFailure(FailureKind.CONTENT_REJECTED)]

    async with at_the_desk(settings, tmp_path) as services:
        job = await ended(services, await sent(services), within_s=10)

        assert (job.code, desk.calls.count("submit")) == ("content_rejected", 1)


async def test_a_key_that_is_revoked_while_orders_run_orders_nothing_twice(
    settings: Settings, tmp_path: Path, desk: type[Desk]
) -> None:
    """401 to a question: the order may be done and paid for, so that no other provider is paid as well."""
    desk.script["poll"] = [ProviderFailure(FailureKind.AUTH, "status_401")]
    second = DESK.format(concurrency=8).replace("provider.desk", "provider.second")
    tiers = route("upscale", "[{ desk = 1 }, { second = 1 }]")

    async with relaying(settings, tmp_path, DESK.format(concurrency=8) + second + tiers) as services:
        job = await ended(services, await sent(services))

        assert (job.state, job.code) == (JobState.FAILED, "provider_uncertain")
        assert desk.calls.count("submit") == 1
        assert "cancel" in desk.calls


async def _under_way(services: Services, outcome: Outcome) -> Job:
    """A job whose worker decided, and died before it could say so of its attempt."""
    job = await claimed_job(services)
    new = NewAttempt(
        id=uuid4(),
        provider="desk",
        exposure=Exposure.LOGGED,
        retention_s=3600,
        deletes=Deletes.TTL,
        expected_usd=0.25,
        parts=(Part.UPLOAD, Part.OUTPUT, Part.RECORD),
    )
    await services.stores.attempts.begin(job, new)
    await let_go(services, job)
    return await services.stores.jobs.begin_settling(job, outcome, owner=services.lease.process.id)


async def test_what_was_delivered_is_not_called_canceled(services: Services) -> None:
    """kill -9 between the decision and the attempt's own end: it succeeded, and its copies expire by its terms."""
    job = await services.settler.settle(await _under_way(services, Outcome.SUCCEEDED))

    (attempt,) = await attempts(services, job)
    assert (attempt.state, attempt.kind) == (AttemptState.SUCCEEDED, None)
    assert set((await words(services, job)).values()) == {"expires_by"}
    assert job.cost_usd == pytest.approx(0.25)


async def test_what_was_not_delivered_and_has_no_handle_is_unknown(services: Services) -> None:
    """The same death with any other outcome."""
    job = await services.settler.settle(await _under_way(services, Outcome.FAILED))

    assert set((await words(services, job)).values()) == {"unknown"}


async def test_who_has_no_lease_asks_no_provider(services: Services) -> None:
    """A settler whose lease is over states what it knows, and leaves the provider to others."""
    asked: list[Attempt] = []

    async def ask(attempt: Attempt) -> Purge:
        asked.append(attempt)
        return Purge(deleted=frozenset(Part))

    purges = Purges(services.stores, signer=services.signer, metrics=services.metrics, ask=ask, may_ask=lambda: False)
    job = await _under_way(services, Outcome.CANCELED)
    (attempt,) = await attempts(services, job)
    await services.stores.attempts.accepted(attempt.id, Handle(id="p1", operation="noop"))

    await purges.at_settle(job.id, await services.stores.custody.copies(job.id))

    assert not asked
    assert set((await words(services, job)).values()) == {"purge_pending"}


async def _wordy(services: Services) -> Job:
    texts = bytearray(json.dumps({"prompt": "a kingfisher"}).encode())
    return await sent(services, operation="edit", parameters={}, texts=texts)


async def _lose_texts(services: Services, job: Job) -> None:
    typed = [u for u in await services.stores.custody.uploads(job.id) if u.what is What.PARAMETERS]
    assert typed
    for upload in typed:
        await keyholder_of(services).shred(upload.key_id, ttl_s=60)


async def test_a_key_that_was_lost_does_not_end_an_order_that_runs(
    settings: Settings, tmp_path: Path, desk: type[Desk]
) -> None:
    """What was typed cannot be opened any more, and need not be: the next worker waits for the order."""
    whole = settings_with(settings, tmp_path, config() + route("edit", "[{ desk = 1 }]"))
    async with running_services(whole) as services:
        async with running_worker(services, whole):
            job = await _wordy(services)
            await waiting(services, job)
        await _lose_texts(services, job)
        desk.script["poll"] = [ProviderFailure(FailureKind.CONTENT_REJECTED)]
        async with running_worker(services, whole):
            job = await ended(services, job)

        assert (job.code, desk.calls.count("submit")) == ("content_rejected", 1)


async def test_without_its_texts_a_job_goes_to_nobody_else(
    settings: Settings, tmp_path: Path, desk: type[Desk]
) -> None:
    """The order failed over there, and what was typed is lost: `key_lost`, and no order without a prompt."""
    whole = settings_with(settings, tmp_path, config() + route("edit", "[{ desk = 1 }]"))
    async with running_services(whole) as services:
        async with running_worker(services, whole):
            job = await _wordy(services)
            await waiting(services, job)
        await _lose_texts(services, job)
        desk.script["poll"] = [ProviderFailure(FailureKind.LOST)]
        async with running_worker(services, whole):
            job = await ended(services, job)

        assert (job.code, desk.calls.count("submit")) == ("key_lost", 1)


async def test_an_order_that_runs_keeps_its_place(settings: Settings, tmp_path: Path, desk: type[Desk]) -> None:
    """A full provider: who takes up an order that runs there already waits for nobody."""
    whole = settings_with(settings, tmp_path, config(concurrency=1))
    async with running_services(whole) as services:
        async with running_worker(services, whole):
            job = await sent(services)
            await waiting(services, job)
        # A busy Redis may have missed that the worker let go; then the slot ends with its lifetime.
        await eventually(lambda: services.slots.acquire("desk", uuid4(), limit=1), within_s=LIFETIME_S + 10)
        desk.script["poll"] = [ProviderFailure(FailureKind.CONTENT_REJECTED)]
        async with running_worker(services, whole):
            job = await ended(services, job, within_s=4)

        assert (job.code, job.attempts) == ("content_rejected", 2)


async def test_a_receipt_that_is_revised_names_the_same_time_of_settling(settings: Settings) -> None:
    """Outputs of ours that are destroyed later are no part of it."""
    async with running_services(settings) as services:
        await pretend_worker(services)
        job = await services.settler.settle(await _under_way(services, Outcome.SUCCEEDED))
        first = await receipt(services, job)
        await run_sql(
            settings,
            "INSERT INTO custody (job_id, domain, holder, what, ref, fence, closed_at, evidence)"
            " VALUES ($1, 'ours', 'blob', 'output', 'x', 1, now() + interval '1 hour', 'absent')",
            job.id,
        )
        (attempt,) = await attempts(services, job)

        assert await services.purges.go_on(msgspec.structs.replace(attempt, is_late=True))
        second = await receipt(services, job)
        assert (second.revision, second.settled_at) == (2, first.settled_at)

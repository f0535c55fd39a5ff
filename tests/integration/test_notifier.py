"""Notifications: after the receipt, until they are delivered or have failed for good, and gone afterwards."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest

from broker import sweep
from broker.consents import Wish
from broker.errors import UploadIncomplete
from broker.jobs import Job, Outcome
from broker.metrics import render
from broker.notifications import MAX_AGE_S, Channel, Kind, Target
from broker.notifier import Notifier
from broker.services import Services
from broker.settings import Settings
from broker.store.users import NewUser
from tests.checks import plant
from tests.emulators import base
from tests.lifecycle import count, eventually, hasty, rows_of, run_sql, settled
from tests.profiles import settings_under
from tests.stack import body_of, pretend_worker, running_services, submission, upload_bytes
from tests.telling import HOOK, World, notifier_of, wired_world

PUSH_ASKED = '[consent]\noptional = ["push"]'
NOW = "UPDATE notifications SET due_at = now() - interval '1 second'"


@pytest.fixture
async def outside(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World]:
    """Whoever is told; the tests make the passes themselves."""
    async with wired_world(monkeypatch, every_s=3_600) as there:
        yield there


@pytest.fixture
async def telling(settings: Settings, outside: World) -> AsyncGenerator[Services]:
    async with running_services(settings) as services:
        await pretend_worker(services)
        yield services


@pytest.fixture
async def asking(settings: Settings, outside: World, tmp_path: Path) -> AsyncGenerator[Services]:
    """The same under a profile that asks for consent to push."""
    async with running_services(settings_under(settings, tmp_path, PUSH_ASKED)) as services:
        await pretend_worker(services)
        yield services


def hook() -> Target:
    return Target(channel=Channel.WEBHOOK, address=HOOK)


def phone(token: str = "phone:kingfisher") -> Target:
    return Target(channel=Channel.FCM, address=token)


async def sent(services: Services, *targets: Target, user: NewUser | None = None) -> Job:
    new = await submission(services, targets=targets)
    if user is not None:
        new = msgspec.structs.replace(new, user_id=user.user_id, token=user.token)
    return (await services.intake.submit(new, body_of(upload_bytes())))[0]


async def ended(services: Services, job: Job, outcome: Outcome = Outcome.SUCCEEDED) -> Job:
    running = await services.stores.jobs.claim(job.id, await pretend_worker(services))
    assert running is not None
    return await settled(services, running, outcome)


async def waiting(services: Services) -> int:
    return await count(services.settings, "notifications")


def figure(services: Services, channel: Channel, outcome: str) -> float | None:
    labels = {"channel": channel.value, "outcome": outcome}
    return services.metrics.registry.get_sample_value("lethe_notifications_total", labels)


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELED, Outcome.EXPIRED])
async def test_nobody_is_told_before_the_receipt_is_there(telling: Services, outside: World, outcome: Outcome) -> None:
    """Queued, running, settling: not a word. Final: once by each channel, with the word of its state."""
    notifier = telling.notifier
    job = await sent(telling, hook(), phone())
    assert (await notifier.once(), await waiting(telling)) == (0, 2)
    running = await telling.stores.jobs.claim(job.id, await pretend_worker(telling))
    assert running is not None
    assert await notifier.once() == 0
    final = await settled(telling, running, outcome)
    assert await telling.stores.receipts.latest(job.id)

    assert await notifier.once() == 2

    (event,) = outside.receiver.events.values()
    assert (event["type"], event["data"]) == (f"job.{final.state}", {"id": str(job.public_id)})
    assert [message.data for message in outside.fcm.messages] == [{"job": str(job.public_id), "type": event["type"]}]
    assert (await notifier.once(), await waiting(telling)) == (0, 0)
    assert figure(telling, Channel.WEBHOOK, "delivered") == figure(telling, Channel.FCM, "delivered") == 1


async def test_where_it_went_is_nowhere_afterwards(telling: Services, outside: World) -> None:
    """No table, log line or Redis key has URL or token; nobody outside was sent anything that the job held."""
    token = plant("phone:plantedkingfisher")
    url = plant("https://app.example/hooks/plantedkingfisher")
    job = await sent(telling, Target(channel=Channel.WEBHOOK, address=url), phone(token))
    assert job.user_id is not None
    user_id = job.user_id
    await ended(telling, job)

    assert await telling.notifier.once() == 2

    seen = outside.receiver.bytes_seen + outside.fcm.bytes_seen
    assert user_id.encode() not in seen
    assert str(job.id).encode() not in seen
    assert job.operation.encode() not in outside.receiver.requests("hook")[0].body
    assert "plantedkingfisher" not in render(telling.metrics.registry).decode()


async def test_what_fails_is_tried_again_under_its_id(telling: Services, outside: World) -> None:
    """After 5 s, then minutes, then hours; delivered in the end, once."""
    await ended(telling, await sent(telling, hook()))
    outside.receiver.next("hook", base.broken(503), base.LOST, base.broken(500))
    for _ in range(4):
        assert await telling.notifier.once() == 1
        assert await telling.notifier.once() == 0
        await run_sql(telling.settings, NOW)
    ids = [seen.headers["webhook-id"] for seen in outside.receiver.requests("hook")]
    assert len(ids) == 4
    assert set(ids) == set(outside.receiver.events)
    assert await waiting(telling) == 0


async def test_the_wait_is_that_of_the_schedule_or_longer(telling: Services, outside: World) -> None:
    """A receiver may ask for more time, and not for less."""
    due = "SELECT tries, round(extract(epoch FROM due_at - now()))::int AS in_s FROM notifications"
    await ended(telling, await sent(telling, hook()))
    outside.receiver.next("hook", base.limited(600), base.limited(1))
    for expected in ((1, 600), (2, 300)):
        await telling.notifier.once()
        (row,) = await rows_of(telling.settings, due)
        assert (row["tries"], abs(row["in_s"] - expected[1]) < 5) == (expected[0], True)
        await run_sql(telling.settings, NOW)


async def test_what_fails_for_good_is_given_up_and_destroyed(telling: Services, outside: World) -> None:
    """Ten tries of a webhook, five of a push; afterwards nothing is left of where it was to go."""
    await ended(telling, await sent(telling, hook(), phone()))
    outside.receiver.next("hook", *[base.broken(500)] * 20)
    outside.fcm.next("send", *[base.broken(500)] * 20)
    for _ in range(12):
        await telling.notifier.once()
        await run_sql(telling.settings, NOW)
    assert (len(outside.receiver.requests("hook")), len(outside.fcm.requests("send"))) == (10, 5)
    assert await waiting(telling) == 0
    assert figure(telling, Channel.WEBHOOK, "given_up") == figure(telling, Channel.FCM, "given_up") == 1


async def test_whoever_is_gone_is_not_asked_again(telling: Services, outside: World) -> None:
    """410 of a receiver, an app that was removed: one try."""
    await ended(telling, await sent(telling, hook(), phone()))
    outside.receiver.next("hook", base.broken(410))
    outside.fcm.gone.add(phone().address)
    await telling.notifier.once()
    assert await waiting(telling) == 0
    assert figure(telling, Channel.WEBHOOK, "gone") == figure(telling, Channel.FCM, "gone") == 1


async def test_two_brokers_tell_once(telling: Services, outside: World) -> None:
    """Whoever takes a notification has it; the other finds nothing."""
    for _ in range(5):
        await ended(telling, await sent(telling, hook()))
    others = [notifier_of(telling, outside.senders) for _ in range(3)]
    await asyncio.gather(*(notifier.once() for notifier in others))
    assert len(outside.receiver.requests("hook")) == len(outside.receiver.events) == 5


async def test_a_slow_server_holds_up_no_phone(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a faster server that comes after it: tries go on side by side, pass after pass."""
    async with wired_world(monkeypatch, every_s=0.05) as outside, running_services(settings) as services:
        await pretend_worker(services)
        outside.receiver.latency_s = 60.0
        await ended(services, await sent(services, hook()))
        async with asyncio.timeout(20):
            while not outside.receiver.requests("hook"):  # noqa: ASYNC110 - it comes from another thread
                await asyncio.sleep(0.01)
        outside.receiver.latency_s = 0.0
        await ended(services, await sent(services, hook(), phone()))
        async with asyncio.timeout(18):  # less than the first try has
            while not (outside.fcm.messages and outside.receiver.events):  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.01)
        await eventually(lambda: are_waiting(services, 1))  # whoever was told is struck off a moment later


async def are_waiting(services: Services, count: int) -> bool:
    return await waiting(services) == count


async def test_a_broker_that_dies_while_it_tells_is_made_up_for(telling: Services, outside: World) -> None:
    """Another tells again under the same id, a minute later, so that the receiver takes it once."""
    await ended(telling, await sent(telling, hook()))
    (taken,) = await telling.stores.notifications.due([Channel.WEBHOOK], within_s=60)
    await outside.senders.send(taken)
    assert await telling.notifier.once() == 0
    await run_sql(telling.settings, NOW)
    assert await telling.notifier.once() == 1
    assert list(outside.receiver.events) == [str(taken.id)]
    assert len(outside.receiver.requests("hook")) == 2


async def test_a_switch_ends_what_waits_and_what_comes(telling: Services, outside: World) -> None:
    """Off: destroyed at once, of later jobs not even kept, the other kind goes on; on again: told again."""
    user = await telling.stores.users.mint()
    await sent(telling, hook(), phone(), user=user)
    await telling.stores.notifications.mute(user.user_id, frozenset({Kind.PUSH}))
    assert await waiting(telling) == 1
    await sent(telling, hook(), phone(), user=user)
    assert await count(telling.settings, "notifications", "channel = 'webhook'") == await waiting(telling) == 2
    await telling.stores.notifications.mute(user.user_id, frozenset())
    await sent(telling, phone(), user=user)
    assert await waiting(telling) == 3


async def test_a_switch_in_the_last_moment_counts(telling: Services, outside: World) -> None:
    """A row that was being written while its user switched off is destroyed unsent."""
    job = await ended(telling, await sent(telling, phone()))
    await run_sql(telling.settings, "UPDATE users SET muted = '{push}' WHERE id = $1", job.user_id)
    assert await telling.notifier.once() == 1
    assert (outside.fcm.messages, await waiting(telling)) == ([], 0)
    assert figure(telling, Channel.FCM, "switched_off") == 1


async def test_consent_that_was_withdrawn_meanwhile_counts(asking: Services, outside: World) -> None:
    """m2r-9: under a profile that asks for consent to push, nothing is sent without it; a webhook needs none."""
    notice = (await asking.noticeboard.shown()).current.version
    user = await asking.stores.users.mint()
    await asking.stores.consents.record(user.user_id, Wish(notice=notice, give=("push",)))
    first, second = [await sent(asking, hook(), phone(), user=user) for _ in range(2)]
    await ended(asking, first)
    assert (await asking.notifier.once(), len(outside.fcm.messages)) == (2, 1)

    await asking.stores.consents.record(user.user_id, Wish(notice=notice, withdraw=("push",)))
    await ended(asking, second)

    assert (await asking.notifier.once(), len(outside.fcm.messages)) == (2, 1)
    assert (len(outside.receiver.events), await waiting(asking)) == (2, 0)


async def test_it_goes_with_its_job(telling: Services, outside: World) -> None:
    """Whose record has come to its end is told to nobody any more."""
    outside.receiver.next("hook", base.broken(500))
    await ended(telling, await sent(telling, hook()))
    await telling.notifier.once()
    assert await waiting(telling) == 1
    await hasty(telling).records()
    assert (await waiting(telling), await count(telling.settings, "jobs")) == (0, 0)


async def test_it_goes_with_its_job_and_its_user(telling: Services, outside: World) -> None:
    """An erased user is told nothing any more, nor is anybody about them; nothing of where is left."""
    user = await telling.stores.users.mint()
    await ended(telling, await sent(telling, hook(), user=user))
    await sent(telling, phone(), user=user)
    await telling.erasure.ask(user.token, user.user_id)
    assert await waiting(telling) == 0
    await telling.notifier.once()
    assert (outside.receiver.events, outside.fcm.messages) == ({}, [])


async def test_a_user_who_is_being_erased_is_not_told_of(telling: Services, outside: World) -> None:
    """Also while the erasure still waits for something: the row is destroyed unsent."""
    job = await ended(telling, await sent(telling, hook()))
    await run_sql(telling.settings, "UPDATE users SET erasing_at = now() WHERE id = $1", job.user_id)
    await telling.notifier.once()
    assert (outside.receiver.events, await waiting(telling)) == ({}, 0)


async def test_its_age_has_an_end(telling: Services, outside: World) -> None:
    """Four days after the job came in nothing is left, whatever has become of the job, or of who would send it."""
    await sent(telling, hook())
    await telling.sweep.records()
    assert await waiting(telling) == 1
    await run_sql(
        telling.settings, "UPDATE notifications SET created_at = now() - $1 * interval '1 s'", MAX_AGE_S + 1.0
    )
    await telling.sweep.records()
    assert await waiting(telling) == 0
    assert sweep.ORPHANED_AFTER_S < MAX_AGE_S


async def test_a_discarded_upload_tells_nobody(telling: Services) -> None:
    """Where somebody is told is written with the last byte, not before."""
    new = await submission(telling, targets=(hook(),))

    async def broken() -> AsyncGenerator[bytes]:
        yield upload_bytes()
        raise ConnectionError

    with pytest.raises(UploadIncomplete):
        await telling.intake.submit(new, broken())
    assert await waiting(telling) == 0


async def test_the_loop_tells_by_itself(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a broker that runs, within a pass or two; and a store that is silent for a moment ends nothing."""
    async with wired_world(monkeypatch, every_s=0.05) as outside, running_services(settings) as services:
        await pretend_worker(services)
        failures = [1]
        due = services.stores.notifications.due

        async def silent_once(*args: object, **named: object) -> object:
            if failures:
                failures.pop()
                raise RuntimeError
            return await due(*args, **named)  # pyright: ignore[reportArgumentType]

        monkeypatch.setattr(services.stores.notifications, "due", silent_once)
        await ended(services, await sent(services, hook()))
        async with asyncio.timeout(20):
            while not outside.receiver.events:  # noqa: ASYNC110 - it comes from another thread
                await asyncio.sleep(0.01)
        assert not failures


async def test_a_worker_reads_no_key(settings: Settings) -> None:
    """Its services send nothing, whatever files the settings name."""
    named = msgspec.structs.replace(settings, webhook_keys_file="/nowhere", fcm_account_file="/nowhere")
    async with running_services(named, role="worker") as services:
        assert services.senders.channels == []
        assert isinstance(services.notifier, Notifier)

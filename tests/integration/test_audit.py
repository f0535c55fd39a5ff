"""The audit record: what is done to sensitive data stands in it, stays as it was, and says where it was changed."""

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.audit import Broken
from broker.cli import main
from broker.consents import Wish
from broker.devices import Kem
from broker.receipts import Signer
from broker.sealing import Sealing, check_record
from broker.services import Services
from broker.settings import Settings
from broker.store.users import NewUser
from tests.erasing import finished, minted, queued
from tests.lifecycle import count, rows_of, run_sql, settled
from tests.stack import pretend_worker

DISABLE = "ALTER TABLE audit_events DISABLE TRIGGER USER; ALTER TABLE audit_batches DISABLE TRIGGER USER;"
"""What only the owner of the tables can do, and with it whoever broke in."""


@pytest.fixture
async def user(services: Services) -> NewUser:
    return await minted(services)


async def said(services: Services, user: NewUser) -> list[tuple[str, str]]:
    """Events of a user, oldest first."""
    events = await services.stores.audit.of_user(user.user_id, before=None, limit=1_000)
    return [(event.event, event.detail) for event in reversed(events)]


async def sealed(services: Services, user: NewUser) -> None:
    """Two batches about a user."""
    await finished(services, user)
    await services.sealing.once()
    await queued(services, user)
    await services.sealing.once()


async def check(services: Services, *, known: tuple[int, str] | None = None) -> int:
    """The number of batches of a record that is whole."""
    return (await check_record(services.stores.audit, [services.signer.vkey], known=known)).batches


async def test_the_life_of_a_job_is_in_the_record(services: Services, user: NewUser) -> None:
    """xpictures-3: taken in, opened by a worker, let go, made, destroyed, and every other thing about its user."""
    job = await finished(services, user)
    await services.gallery.destroy(job.id, 0)
    assert await said(services, user) == [
        ("user_made", ""),
        ("copies_opened", "upload/blob upload/key upload/process"),
        ("copies_closed", "upload/process=overwritten"),
        ("copies_opened", "upload/process"),
        ("copies_opened", "output/blob output/key"),
        ("copies_closed", "upload/blob=absent upload/key=shredded upload/process=overwritten"),
        ("copies_closed", "output/blob=absent output/key=shredded"),
    ]


async def test_rights_consents_devices_and_credits_are_in_the_record(services: Services, user: NewUser) -> None:
    """xpictures-3: whoever writes these rows, the event is in the same write."""
    stores = services.stores
    notice = (await services.noticeboard.shown()).current.version
    await stores.consents.record(user.user_id, Wish(notice=notice, give=("processing",)))
    await stores.consents.record(user.user_id, Wish(notice=notice, withdraw=("processing",)))
    device = await stores.devices.add(user.user_id, Kem.X25519, bytes([9]) + bytes(31))
    await stores.devices.delete(user.user_id, device[0].id)
    await stores.links.link(bytes(32), user.user_id)
    await stores.links.unlink(bytes(32))
    await stores.credits.grant(user.user_id, 5, reference="order-1")
    await stores.requests.restrict(user.user_id, is_restricted=True)
    assert [event for event, _ in await said(services, user)][1:] == [
        "consent_given",
        "consent_withdrawn",
        "device_added",
        "device_removed",
        "sign_in_linked",
        "sign_in_unlinked",
        "credits_granted",
        "processing_restricted",
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET detail = 'nothing'",
        "DELETE FROM audit_events",
        "TRUNCATE audit_events",
        "UPDATE audit_batches SET note = 'x'",
        "UPDATE audit_batches SET events_deleted_at = now()",
        "DELETE FROM audit_batches",
        "TRUNCATE audit_batches",
    ],
)
async def test_postgres_only_adds(services: Services, user: NewUser, settings: Settings, statement: str) -> None:
    """xpictures-3: an event is neither changed nor deleted, sealed or not; nor is a batch."""
    await sealed(services, user)
    await queued(services, user)
    with pytest.raises(asyncpg.CheckViolationError):
        await run_sql(settings, statement)


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        (
            "UPDATE audit_events SET detail = 'x' WHERE id = (SELECT last_id FROM audit_batches WHERE number = 1)",
            1,
        ),
        ("UPDATE audit_events SET pseudonym = gen_random_uuid() WHERE event = 'user_made'", 1),
        ("DELETE FROM audit_events WHERE id = (SELECT last_id FROM audit_batches WHERE number = 1)", 1),
        ("DELETE FROM audit_events USING audit_batches WHERE number = 2 AND audit_events.id >= first_id", 2),
        (
            "INSERT INTO audit_events (id, event) OVERRIDING SYSTEM VALUE SELECT 0, 'x'; "
            "UPDATE audit_batches SET first_id = 0 WHERE number = 1",
            1,
        ),
        ("UPDATE audit_batches SET keep_until = now() - interval '1 day' WHERE number = 2", 2),
        ("DELETE FROM audit_batches WHERE number = 1", 1),
        ("UPDATE audit_batches SET note = replace(note, '\"events\":', '\"events\":1') WHERE number = 2", 2),
    ],
)
async def test_what_was_sealed_is_not_quietly_changed(
    services: Services, user: NewUser, settings: Settings, changed: str, where: int
) -> None:
    """xpictures-3: whoever owns the tables and takes the triggers away is found out, at the first broken place."""
    await sealed(services, user)
    assert await check(services) == 2
    await run_sql(settings, DISABLE + changed)
    with pytest.raises(Broken, match=f"batch {where}"):
        await check(services)


async def test_a_record_that_is_cut_off_or_made_anew_is_found_by_its_head(
    services: Services, user: NewUser, settings: Settings
) -> None:
    """Without the head that somebody kept it looks whole; with it, not: also where the signing key was stolen."""
    await sealed(services, user)
    head = await services.stores.audit.head()
    assert head is not None
    known = (head.number, head.hash)
    assert await check(services, known=known) == 2

    await run_sql(settings, DISABLE + "DELETE FROM audit_batches WHERE number = 2")
    assert await check(services) == 1
    with pytest.raises(Broken, match="batch 2, which you know, is missing"):
        await check(services, known=known)
    await run_sql(
        settings, "UPDATE audit_events SET detail = 'nothing' WHERE id > (SELECT max(last_id) FROM audit_batches)"
    )
    await services.sealing.once()
    assert await check(services) == 2
    with pytest.raises(Broken, match="another than the one that you know"):
        await check(services, known=known)


async def test_a_batch_that_another_key_signed_is_found(services: Services, user: NewUser) -> None:
    """A chain made by whoever has only the database."""
    await sealed(services, user)
    other = Signer("lethe.test/receipts", Ed25519PrivateKey.generate())
    await queued(services, user)
    await Sealing(services.stores.audit, signer=other, keep_for_s=60).once()
    with pytest.raises(Broken, match="batch 3: no signature by a known key"):
        await check(services)


async def test_an_event_that_is_not_committed_yet_is_not_passed_over(
    services: Services, user: NewUser, settings: Settings
) -> None:
    """Whoever drew a lower id and commits later is waited for: nothing comes up behind the seal."""
    await services.sealing.once()
    slow = await asyncpg.connect(settings.postgres_dsn)
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("INSERT INTO audit_events (event) VALUES ('slow')")
    await queued(services, user)
    sealing = asyncio.create_task(services.sealing.once())
    await asyncio.sleep(0.3)  # long enough to have sealed, did it not wait
    assert not sealing.done()
    await transaction.commit()
    await slow.close()
    await sealing
    assert (await check_record(services.stores.audit, [services.signer.vkey])).unsealed == 0


async def test_many_seal_at_once_and_one_does(services: Services, user: NewUser, settings: Settings) -> None:
    """Every broker and worker seals: the chain has one next batch."""
    for _ in range(3):
        await queued(services, user)
        await asyncio.gather(*(services.sealing.once() for _ in range(8)))
    await services.sealing.once()
    whole = await check_record(services.stores.audit, [services.signer.vkey])
    assert whole.unsealed == 0
    assert whole.events == await count(settings, "audit_events")


async def test_events_go_at_their_time_and_the_chain_stays(
    services: Services, user: NewUser, settings: Settings
) -> None:
    """The sweep deletes the events of old batches, whole batches; what is left is verified all the same."""
    await finished(services, user)
    past = Sealing(services.stores.audit, signer=services.signer, keep_for_s=-1)
    await past.once()
    old = await count(settings, "audit_events")
    await queued(services, user)
    await services.sealing.once()

    await services.sweep.records()
    whole = await check_record(services.stores.audit, [services.signer.vkey])
    assert (whole.batches, whole.deleted) == (2, 1)
    assert await count(settings, "audit_events", f"id <= {old}") == 0
    assert await count(settings, "audit_events") > 0


async def test_what_stays_of_an_erased_user_leads_nowhere(
    services: Services, user: NewUser, settings: Settings
) -> None:
    """Events stay and are verified; no other row of the database knows their pseudonym or their job any more."""
    await sealed(services, user)
    (row,) = await rows_of(settings, f"SELECT pseudonym FROM users WHERE id = '{user.user_id}'")
    await services.erasure.ask(user.token, user.user_id)
    await services.sealing.once()
    assert await check(services) == 3
    events = await rows_of(settings, f"SELECT event, job_id FROM audit_events WHERE pseudonym = '{row['pseudonym']}'")
    assert {event["event"] for event in events} >= {"user_made", "copies_opened", "copies_closed", "user_erased"}
    needles = [user.user_id, str(row["pseudonym"]), *{str(event["job_id"]) for event in events if event["job_id"]}]
    tables = await rows_of(settings, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in tables:
        for found in await rows_of(settings, f"SELECT r::text FROM {table} AS r"):
            known = [needle for needle in needles if needle in found[0]]
            assert not known or (table == "audit_events" and user.user_id not in known), (table, known)


async def test_a_users_delete_of_everything_is_told(services: Services, settings: Settings) -> None:
    """A statement past all code of ours leaves its event too."""
    new = await minted(services)
    await run_sql(settings, "DELETE FROM users WHERE id = $1", new.user_id)
    assert await count(settings, "audit_events", "event = 'user_deleted'") == 1


def verify(settings: Settings, keys: Path, *more: str) -> Result:
    arguments = ["audit", "verify", "--dsn", settings.postgres_dsn, "--keys", str(keys), *more]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


async def test_the_command_says_whether_it_is_whole(
    services: Services, user: NewUser, settings: Settings, tmp_path: Path
) -> None:
    """`lethe audit verify`: how much there is, the head to keep, and the first broken place with exit code 1."""
    await sealed(services, user)
    keys = tmp_path / "keys.txt"
    keys.write_text(services.signer.vkey)
    whole = await asyncio.to_thread(verify, settings, keys)
    assert whole.exit_code == 0
    found = re.search(r"(\d+:[0-9a-f]{64})", whole.output)
    assert found
    assert (await asyncio.to_thread(verify, settings, keys, "--head", found[1])).exit_code == 0

    await run_sql(settings, DISABLE + "UPDATE audit_events SET detail = 'nothing'")
    broken = await asyncio.to_thread(verify, settings, keys)
    assert (broken.exit_code, "BROKEN: batch 1" in broken.output) == (1, True)


@pytest.mark.parametrize("head", ["x", "1:abc", ":", "-1:" + "0" * 64])
def test_a_head_that_is_none_is_refused(settings: Settings, tmp_path: Path, head: str) -> None:
    """Before anything is read, with the form."""
    keys = tmp_path / "keys.txt"
    keys.write_text("x+00000000+AAAA")
    said = verify(settings, keys, "--head", head)
    assert (said.exit_code, "NUMBER:HASH" in said.output) == (2, True)


async def test_a_job_costs_few_events(services: Services, user: NewUser, settings: Settings) -> None:
    """Of its own a job has one event for each time that copies are opened or closed; nothing for its states."""
    job = await queued(services, user)
    claimed = await services.stores.jobs.claim(job.id, await pretend_worker(services))
    assert claimed is not None
    await settled(services, claimed)
    assert await count(settings, "audit_events", f"job_id = '{job.id}'") == 4

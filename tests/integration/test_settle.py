"""Settle is the only door: what it does in which order, and whom it does not believe."""

import asyncio
import re
from pathlib import Path

import asyncpg
import msgspec
import pytest

from broker.custody import Holder, NewCopy, What
from broker.errors import IllegalTransition, KeyStillHeld
from broker.jobs import Job, JobState, Outcome, Output
from broker.receipts import verify
from broker.services import Services
from broker.settings import Settings
from broker.store.jobs import GRACE_S
from tests.fakes import (
    HangingBlobStore,
    Journal,
    JournalBlobStore,
    JournalCustody,
    JournalJobs,
    LyingBlobStore,
    LyingKeyholder,
    SilentBlobStore,
    Tap,
)
from tests.lifecycle import (
    blobs,
    claimed_job,
    count,
    eventually,
    final,
    held,
    let_go,
    refs,
    reread,
    run_sql,
)
from tests.rows import begun_by, open_rows
from tests.stack import body_of, keyholder_of, pretend_worker, queued_job, running_services


async def decided(services: Services, job: Job, outcome: Outcome = Outcome.FAILED) -> Job:
    return await services.stores.jobs.begin_settling(job, outcome, owner=services.lease.process.id, code="tested")


def still_held(services: Services, what: str) -> float:
    return services.metrics.registry.get_sample_value("lethe_still_held_total", {"what": what}) or 0.0


async def test_the_order_of_destroying(
    settings: Settings, tmp_path: Path, servers: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SHRED, HAS on another connection, holders, blob deleted and seen absent; then final, with its receipt."""
    monkeypatch.setattr("broker.services.BlobStore", JournalBlobStore)
    monkeypatch.setattr("broker.store.stores.CustodyStore", JournalCustody)
    monkeypatch.setattr("broker.store.stores.JobStore", JournalJobs)
    quiet = msgspec.structs.replace(settings, rescue_every_s=3600.0)
    async with Tap(tmp_path / "tap", keyholder=settings.keyholder_socket) as tap:
        tapped = msgspec.structs.replace(quiet, keyholder_socket=str(tap.path))
        async with running_services(tapped) as services:
            await pretend_worker(services)
            job = await claimed_job(services)
            settling = await decided(services, job)
            Journal.lines.clear()
            work = asyncio.create_task(services.settler.settle(settling))
            await eventually(lambda: _has_written("holders"))
            await let_go(services, job)
            await work

    lines = [re.sub(r"^(holders\n)+", "", line) for line in Journal.lines]
    in_order = [line for at, line in enumerate(lines) if line != "holders" or lines[at - 1] != "holders"]
    shred, has, *rest = in_order
    assert (shred.split()[-1], has.split()[-1]) == ("SHRED", "HAS")
    assert shred.split()[1] != has.split()[1]
    assert rest == ["holders", "blob destroy", "blob absent", "close absent shredded", "final and receipt"]


async def _has_written(line: str) -> bool:
    return line in Journal.lines


async def test_a_settled_job_says_how_each_copy_went(services: Services, settings: Settings) -> None:
    """The receipt verifies, names three kinds of copy, and nothing of the upload is left."""
    job = await claimed_job(services)
    key_ids, blob_names = await refs(services, job.id, "key"), await refs(services, job.id, "blob")

    done = await services.settler.settle(await decided(services, job), let_go=held(job))

    assert (done.state, done.code, done.open_copies) == ("failed", "tested", 0)
    note = await services.stores.receipts.latest(job.id)
    assert note is not None
    receipt = verify(note, [services.signer.vkey])
    assert (receipt.job, receipt.outcome, receipt.provider_copies) == (job.public_id, "failed", "none")
    assert {(copy.holder, copy.evidence) for copy in receipt.copies} == {
        ("key", "shredded"),
        ("blob", "absent"),
        ("process", "overwritten"),
    }
    assert not await keyholder_of(services).has(bytes.fromhex(key_ids[0]))
    assert await services.stores.blobs.size(blob_names[0]) is None
    assert await count(settings, "receipts") == 1


async def test_every_key_of_a_job_is_shredded(services: Services) -> None:
    """A job of several pictures has a key for each: all of them are gone, and looked for."""
    job = await claimed_job(services)
    kept_at = await services.stores.keys.pick()
    second = NewCopy(holder=Holder.KEY, what=What.UPLOAD, ref=job.id.hex, detail=kept_at.detail)
    await services.stores.custody.open(job, [second])
    await keyholder_of(services).put(job.id.bytes, bytearray(32), ttl_s=60)
    key_ids = [bytes.fromhex(ref) for ref in await refs(services, job.id, "key")]
    assert len(key_ids) == 2
    assert all([await keyholder_of(services).has(key_id) for key_id in key_ids])

    await services.settler.settle_or_postpone(await decided(services, job), let_go=held(job))

    assert not any([await keyholder_of(services).has(key_id) for key_id in key_ids])


async def test_a_job_is_settled_once(services: Services, settings: Settings) -> None:
    """Ten settlers at once under one fence: one final write, one receipt."""
    job = await claimed_job(services)
    settling = await decided(services, job)

    answers = await asyncio.gather(
        *(services.settler.settle(settling, let_go=held(job)) for _ in range(10)), return_exceptions=True
    )

    assert len([answer for answer in answers if isinstance(answer, Job)]) == 1
    assert all(isinstance(answer, Job | IllegalTransition) for answer in answers), answers
    assert await count(settings, "receipts") == 1


async def test_a_settler_whose_fence_was_taken_finishes_nothing(services: Services, settings: Settings) -> None:
    """The former settler destroys, which harms nobody, and its last write finds no row."""
    job = await claimed_job(services)
    settling = await decided(services, job)
    await run_sql(settings, "UPDATE jobs SET fence = fence + 1, settling_until = now() + interval '1 minute'")

    with pytest.raises(IllegalTransition):
        await services.settler.settle(settling, let_go=held(job))

    assert (await reread(services, job)).state == "settling"
    assert await count(settings, "receipts") == 0


@pytest.mark.parametrize(
    ("replaced", "liar", "what"),
    [("store.keyholders.Keyholder", LyingKeyholder, "key"), ("services.BlobStore", LyingBlobStore, "blob")],
)
async def test_a_lying_store_is_not_believed(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    replaced: str,
    liar: type[LyingKeyholder] | type[LyingBlobStore],
    what: str,
) -> None:
    """A store that says `gone` and still has it: never final, no receipt, an alarm; final once it tells the truth."""
    monkeypatch.setattr(f"broker.{replaced}", liar)
    monkeypatch.setattr(liar, "is_lying", True)
    async with running_services(settings) as services:
        await pretend_worker(services)
        job = await claimed_job(services)
        assert await services.settler.settle_or_postpone(await decided(services, job), let_go=held(job)) is None
        # Rescue takes it up again and again, and believes it no more than before.
        await eventually(lambda: _rises_above(services, what, 2))

        now = await reread(services, job)
        assert (now.state, now.finalized_at) == ("settling", None)
        assert now.open_copies > 0
        assert await count(settings, "receipts") == 0

        monkeypatch.setattr(liar, "is_lying", False)
        assert (await final(services, job)).state == "failed"
        assert await count(settings, "receipts") == 1


async def _rises_above(services: Services, what: str, times: float) -> bool:
    return still_held(services, what) > times


async def test_a_lying_keyholder_is_caught_before_anything_else(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the key is there no blob is deleted: what can be opened is not called gone piece by piece."""
    monkeypatch.setattr("broker.store.keyholders.Keyholder", LyingKeyholder)
    quiet = msgspec.structs.replace(settings, rescue_every_s=3600.0)
    async with running_services(quiet) as services:
        await pretend_worker(services)
        job = await claimed_job(services)
        with pytest.raises(KeyStillHeld):
            await services.settler.settle(await decided(services, job), let_go=held(job))
        assert len(blobs(settings)) == 1


async def test_a_silent_blob_store_leaves_the_upload_unreadable(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the key gone the job may end: its receipt says `unreadable`, and the blob goes when the store is back."""
    monkeypatch.setattr("broker.services.BlobStore", SilentBlobStore)
    monkeypatch.setattr(SilentBlobStore, "is_silent", True)
    async with running_services(settings) as services:
        await pretend_worker(services)
        job = await claimed_job(services)
        await services.settler.settle_or_postpone(await decided(services, job), let_go=held(job))
        done = await final(services, job)
        note = await services.stores.receipts.latest(done.id)
        assert note is not None
        assert "unreadable" in {copy.evidence for copy in verify(note, [services.signer.vkey]).copies}
        assert len(blobs(settings)) == 1
        await services.sweep.records()
        assert await count(settings, "custody", "evidence = 'unreadable' AND swept_at IS NULL") == 1

        monkeypatch.setattr(SilentBlobStore, "is_silent", False)
        await services.sweep.records()

        assert blobs(settings) == []
        assert await count(settings, "custody", "evidence = 'unreadable' AND swept_at IS NULL") == 0


async def test_a_blob_store_that_hangs_holds_up_no_end(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence without a refusal ends the same way, within the time that settle has."""
    monkeypatch.setattr("broker.services.BlobStore", HangingBlobStore)
    async with running_services(settings) as services:
        await pretend_worker(services)
        job = await claimed_job(services)
        await services.settler.settle_or_postpone(await decided(services, job), let_go=held(job))
        assert (await final(services, job)).state == "failed"
        copies = await services.stores.custody.copies(job.id)
        assert {copy.evidence for copy in copies if copy.holder == "blob"} == {"unreadable"}


async def test_discard_leaves_a_later_upload_alone(services: Services, settings: Settings) -> None:
    """Between the cut and the list of copies the phone sends again: nobody waits for that upload, or destroys it."""
    async with open_rows(settings) as rows:
        first = await rows.received()
        assert first.owner is not None
        cut = await rows.jobs.cut(first, first.owner)
        assert cut is not None
        new = rows.new(first.owner, public_id=first.public_id)
        later = await rows.jobs.take_over(new, begun_by(first.owner, rows.kept_at))
        assert later is not None

        async with asyncio.timeout(3):  # a wait for the later upload's process would take eight
            assert not await services.settler.discard(cut, let_go=held(first))

        copies = await rows.custody.copies(first.id)
        assert {copy.fence for copy in copies if copy.is_open} == {later.fence}
        assert len([copy for copy in copies if copy.is_open]) == 3


async def test_settle_waits_for_a_holder_that_lives(services: Services) -> None:
    """A worker with a lease that has not let go holds up the final state, however long."""
    job = await claimed_job(services)
    work = asyncio.create_task(services.settler.settle(await decided(services, job)))

    done, _ = await asyncio.wait({work}, timeout=0.5)
    assert not done
    now = await reread(services, job)
    assert (now.state, now.open_copies) == ("settling", 3)

    await let_go(services, job)
    assert (await work).state == "failed"


async def test_a_dead_holder_counts_as_gone_two_seconds_after_its_lease(services: Services, settings: Settings) -> None:
    """Not when the lease ends, when its guard may still be killing it, but the grace time later."""
    job = await claimed_job(services)
    settling = await decided(services, job)
    await run_sql(settings, "UPDATE processes SET lease_until = now() WHERE id = $1", job.owner)

    done = await services.settler.settle(settling)

    (process,) = [
        c for c in await services.stores.custody.copies(job.id) if c.holder == "process" and c.ref == str(job.owner)
    ]
    assert process.evidence == "lease_ended"
    assert process.closed_at is not None
    ended = await count(
        settings,
        "custody JOIN processes ON processes.id::text = custody.ref",
        f"custody.id = {process.id} AND closed_at >= lease_until + interval '{GRACE_S} seconds'",
    )
    assert (ended, done.state) == (1, "failed")


async def made_output(services: Services, job: Job) -> Output:
    """What a worker keeps: rows, ciphertext, key."""
    stores = services.stores
    blob, key_id, kept_at = f"{job.id.hex}", job.id.bytes, await stores.keys.pick()
    await stores.custody.open(
        job,
        [
            NewCopy(holder=Holder.BLOB, what=What.OUTPUT, ref=blob),
            NewCopy(holder=Holder.KEY, what=What.OUTPUT, ref=key_id.hex(), detail=kept_at.detail),
        ],
    )
    await stores.blobs.put(blob, body_of(b"ciphertext"))
    await stores.keys.at(kept_at.keyholder).put(key_id, bytearray(32), ttl_s=60)
    return Output(
        n=0,
        blob=blob,
        key_id=key_id,
        keyholder="keyholder",
        incarnation=bytes(16),
        media_type="image/jpeg",
        size_bytes=10,
        width=1,
        height=1,
        destroyed_at=None,
    )


async def test_a_success_keeps_its_outputs_alone(services: Services, settings: Settings) -> None:
    """The delivered output stays until its time; the upload and what nobody delivered go."""
    job = await claimed_job(services)
    output = await made_output(services, job)
    await services.stores.custody.open(job, [NewCopy(holder=Holder.BLOB, what=What.OUTPUT, ref="undelivered")])
    settling = await services.stores.jobs.begin_settling(
        job, Outcome.SUCCEEDED, owner=services.lease.process.id, outputs=[output]
    )

    done = await services.settler.settle(settling, let_go=held(job))

    assert (done.state, done.open_copies) == ("succeeded", 0)
    assert blobs(settings) == [output.blob]
    assert await keyholder_of(services).has(output.key_id)
    still = [copy.ref for copy in await services.stores.custody.copies(job.id) if copy.is_open]
    assert sorted(still) == sorted([output.blob, output.key_id.hex()])
    await services.settler.destroy_outputs(job.id)
    assert blobs(settings) == []


async def test_a_failure_keeps_no_output(services: Services, settings: Settings) -> None:
    """What a worker had stored before its job was cancelled is destroyed with the upload."""
    job = await claimed_job(services)
    output = await made_output(services, job)
    settling = await decided(services, job, Outcome.CANCELED)

    await services.settler.settle(settling, let_go=held(job))

    assert blobs(settings) == []
    assert not await keyholder_of(services).has(output.key_id)
    assert await count(settings, "custody", "closed_at IS NULL") == 0


async def test_a_settling_that_stopped_is_resumed(services: Services, settings: Settings) -> None:
    """The settler died after the key was shredded: another one ends the job, with the outcome that was decided."""
    job = await claimed_job(services)
    settling = await decided(services, job, Outcome.CANCELED)
    await keyholder_of(services).shred(bytes.fromhex((await refs(services, job.id, "key"))[0]), ttl_s=60)
    await let_go(services, job)
    await run_sql(settings, "UPDATE jobs SET settling_until = now() WHERE id = $1", settling.id)

    done = await final(services, job)

    assert (done.state, done.code, done.attempts) == (JobState.CANCELED, "tested", 1)


async def test_a_copy_opened_meanwhile_holds_up_the_final_state(services: Services, settings: Settings) -> None:
    """Settle looked, then a copy appeared: Postgres refuses, and the next attempt destroys that copy too."""
    job = await queued_job(services)
    settling = await decided(services, job)
    insert = (
        "INSERT INTO custody (job_id, domain, holder, what, ref, fence) VALUES ($1, 'ours', 'blob', 'upload', 'cd', 1)"
    )
    copies = services.stores.custody.copies

    async def slow_copies(job_id: object) -> object:
        found = await copies(settling.id)
        if (await reread(services, job)).open_copies == 2:
            await run_sql(settings, insert, settling.id)
        return found

    object.__setattr__(services.stores.custody, "copies", slow_copies)

    assert await services.settler.settle_or_postpone(settling) is None

    assert still_held(services, "holder") >= 1
    assert (await final(services, job)).state == "failed"


async def test_no_receipt_names_an_open_copy(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two settlers close the same row: whoever waited for the other must not sign what it saw before."""
    job = await claimed_job(services)
    settling = await decided(services, job)
    copies = await services.stores.custody.copies(job.id)
    (key,) = [copy for copy in copies if copy.holder == "key"]
    closing = "UPDATE custody SET closed_at = now(), evidence = 'shredded' WHERE id = $1"
    other = await asyncpg.connect(settings.postgres_dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute(closing, key.id)

    work = asyncio.create_task(services.settler.settle_or_postpone(settling, let_go=held(job)))
    await eventually(lambda: _is_waiting_for_a_lock(services))
    await transaction.commit()
    await other.close()
    await work

    done = await final(services, job)
    note = await services.stores.receipts.latest(done.id)
    assert note is not None
    assert all(copy.evidence and copy.closed_at for copy in verify(note, [services.signer.vkey]).copies)


async def _is_waiting_for_a_lock(services: Services) -> bool:
    row = await services.stores.database.row("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted) AS found")
    return row is not None and row["found"]

"""Every verb of the job store: only from the states that the drawing allows, only under the fence, only once."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from uuid import uuid4

import pytest

from broker.custody import Evidence, Held, Holder, NewCopy, What
from broker.errors import IllegalTransition
from broker.jobs import TRANSITIONS, Job, JobState, Outcome
from broker.settings import Settings
from tests.lifecycle import count, run_sql
from tests.rows import ADMISSION, Rows, begun_by, open_rows


@pytest.fixture
async def rows(settings: Settings) -> AsyncGenerator[Rows]:
    async with open_rows(settings) as rows:
        yield rows


async def closed(rows: Rows, job: Job) -> None:
    """Close every row as settle would."""
    words = {Holder.KEY: Evidence.SHREDDED, Holder.BLOB: Evidence.ABSENT, Holder.PROCESS: Evidence.OVERWRITTEN}
    copies = await rows.custody.copies(job.id)
    await rows.custody.close({copy.id: words[copy.holder] for copy in copies})


async def finish(rows: Rows, job: Job) -> Job:
    return await rows.jobs.finish(job, note="note", outputs_for_s=60)


async def job_in(rows: Rows, state: JobState) -> Job:
    """A job that came to a state by the verbs alone."""
    if state is JobState.RECEIVING:
        return await rows.received()
    if state is JobState.QUEUED:
        return await rows.queued()
    running = await rows.running()
    if state is JobState.RUNNING:
        return running
    outcome = Outcome.SUCCEEDED if state is JobState.SETTLING else Outcome(state)
    settling = await rows.jobs.begin_settling(running, outcome, owner=uuid4())
    if state is JobState.SETTLING:
        return settling
    await closed(rows, settling)
    return await finish(rows, settling)


async def claim(rows: Rows, job: Job) -> Job:
    claimed = await rows.jobs.claim(job.id, await rows.process())
    if claimed is None:
        raise IllegalTransition
    return claimed


async def cut(rows: Rows, job: Job) -> Job:
    taken = await rows.jobs.cut(job, uuid4())
    if taken is None:
        raise IllegalTransition
    return taken


async def finish_closed(rows: Rows, job: Job) -> Job:
    if not job.is_final:
        await closed(rows, job)
    return await finish(rows, job)


VERBS: dict[str, tuple[Callable[[Rows, Job], Awaitable[Job]], JobState | None]] = {
    "admit": (lambda rows, job: rows.jobs.admit(job, ADMISSION), JobState.QUEUED),
    "claim": (claim, JobState.RUNNING),
    "retry": (lambda rows, job: rows.jobs.retry(job), JobState.QUEUED),
    "cut": (cut, JobState.RECEIVING),
    "begin_settling": (
        lambda rows, job: rows.jobs.begin_settling(job, Outcome.CANCELED, owner=uuid4()),
        JobState.SETTLING,
    ),
    "finish": (finish_closed, None),
}
FROM = {
    "admit": {JobState.RECEIVING},
    "claim": {JobState.QUEUED},
    "retry": {JobState.RUNNING},
    "cut": {JobState.RECEIVING},
    "begin_settling": {JobState.QUEUED, JobState.RUNNING},
    "finish": {JobState.SETTLING},
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", JobState)
async def test_a_verb_acts_from_its_states_alone(rows: Rows, state: JobState, verb: str) -> None:
    """Each verb in each state either makes its one transition, which the drawing allows, or changes nothing."""
    before = await rows.get(await job_in(rows, state))
    act, target = VERBS[verb]

    if state in FROM[verb]:
        await act(rows, before)
        after = await rows.get(before)
        assert after.state == (target or JobState(before.outcome or ""))
        assert after.state in TRANSITIONS[state]
        assert after.version > before.version
    else:
        with pytest.raises(IllegalTransition):
            await act(rows, before)
        after = await rows.get(before)
        assert (after.state, after.version, after.fence) == (before.state, before.version, before.fence)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "claim"])
@pytest.mark.parametrize("behind", [-1, 1])
async def test_a_stale_fence_writes_nothing(rows: Rows, verb: str, behind: int, settings: Settings) -> None:
    """Who acts under another fence than the row's, lower or higher, changes neither job nor custody."""
    act, _ = VERBS[verb]
    job = await job_in(rows, next(iter(FROM[verb])))
    await run_sql(settings, "UPDATE jobs SET fence = fence - $2 WHERE id = $1", job.id, behind)
    before, copies = await rows.get(job), await rows.custody.copies(job.id)
    if verb == "finish":
        await closed(rows, job)
        before, copies = await rows.get(job), await rows.custody.copies(job.id)

    with pytest.raises(IllegalTransition):
        await act(rows, job)

    after = await rows.get(job)
    assert (after.state, after.version, after.outcome) == (before.state, before.version, before.outcome)
    assert await rows.custody.copies(job.id) == copies
    assert await rows.stores.receipts.latest(job.id) is None


async def test_a_stale_worker_opens_no_copy_and_reports_no_progress(rows: Rows) -> None:
    """After a retry the former worker's writes find no row."""
    former = await rows.running()
    await rows.jobs.retry(former)
    await claim(rows, former)
    before = len(await rows.custody.copies(former.id))

    with pytest.raises(IllegalTransition):
        await rows.custody.open(former, [NewCopy(holder=Holder.BLOB, what=What.OUTPUT, ref="ab")])
    assert await rows.jobs.set_progress(former, 0.5) is None

    assert len(await rows.custody.copies(former.id)) == before
    assert (await rows.get(former)).progress == 0


async def test_ten_claims_at_once_have_one_winner(rows: Rows) -> None:
    """Of ten workers that hear the bell one gets the job, and one custody row names it."""
    for _ in range(5):
        job = await rows.queued()
        workers = [await rows.process() for _ in range(10)]

        claims = await asyncio.gather(*(rows.jobs.claim(job.id, worker) for worker in workers))

        (winner,) = [claimed for claimed in claims if claimed is not None]
        copies = [c for c in await rows.custody.copies(job.id) if c.holder == "process" and c.is_open]
        assert [copy.ref for copy in copies] == [str(winner.owner)]
        assert (winner.attempts, winner.fence) == (1, job.fence + 1)


async def test_sixty_four_decisions_at_once_have_one_winner(rows: Rows) -> None:
    """Cancel, finish and expire race: one outcome is decided, once, and nobody changes it after."""
    outcomes = list(Outcome)
    for _ in range(5):
        job = await rows.running()
        decisions = [rows.jobs.begin_settling(job, outcomes[i % 4], owner=uuid4()) for i in range(64)]

        answers = await asyncio.gather(*decisions, return_exceptions=True)

        (winner,) = [answer for answer in answers if isinstance(answer, Job)]
        assert sum(isinstance(answer, IllegalTransition) for answer in answers) == 63
        now = await rows.get(job)
        assert (now.state, now.outcome, now.fence) == ("settling", winner.outcome, job.fence + 1)


async def test_a_job_past_its_deadline_cannot_be_claimed(rows: Rows, settings: Settings) -> None:
    """Neither after its start deadline nor after its finish deadline."""
    for column in ("start_by", "finish_by"):
        job = await rows.queued()
        await run_sql(settings, f"UPDATE jobs SET {column} = now() - interval '1 second' WHERE id = $1", job.id)
        assert await rows.jobs.claim(job.id, await rows.process()) is None
        assert (await rows.get(job)).state == "queued"


async def test_a_process_without_a_lease_claims_nothing(rows: Rows, settings: Settings) -> None:
    """A worker whose lease has ended, or who never had one, gets no upload."""
    job = await rows.queued()
    ended = await rows.process()
    await run_sql(settings, "UPDATE processes SET lease_until = now() WHERE id = $1", ended)

    assert await rows.jobs.claim(job.id, ended) is None
    assert await rows.jobs.claim(job.id, uuid4()) is None


async def test_an_ended_lease_cannot_be_renewed(rows: Rows, settings: Settings) -> None:
    """What others may have called ended never comes back."""
    processes = rows.stores.processes
    process_id = await rows.process()
    (process,) = [alive for alive in await processes.alive() if alive.id == process_id]
    assert await processes.renew(process, lease_s=60)
    await run_sql(settings, "UPDATE processes SET lease_until = now() WHERE id = $1", process_id)

    assert not await processes.renew(process, lease_s=60)
    assert process_id not in {alive.id for alive in await processes.alive()}


async def test_one_id_is_received_once(rows: Rows) -> None:
    """Ten uploads at once under one id make one row."""
    broker, public_id = await rows.process(), uuid4()
    received = await asyncio.gather(
        *(rows.jobs.receive(rows.new(broker, public_id=public_id), begun_by(broker)) for _ in range(10))
    )
    assert len([job for job in received if job is not None]) == 1


async def test_a_later_upload_takes_over(rows: Rows) -> None:
    """It gets a higher fence and rows of its own; the earlier one can no longer be admitted."""
    first = await rows.received()
    broker = await rows.process()

    second = await rows.jobs.take_over(rows.new(broker, public_id=first.public_id), begun_by(broker))

    assert second is not None
    assert (second.id, second.fence) == (first.id, first.fence + 1)
    with pytest.raises(IllegalTransition):
        await rows.jobs.admit(first, ADMISSION)
    queued = await rows.jobs.admit(second, ADMISSION)
    assert {c.fence for c in await rows.custody.copies(queued.id) if c.is_open} == {first.fence, second.fence}
    assert await rows.jobs.take_over(rows.new(broker, public_id=first.public_id), begun_by(broker)) is None


async def test_an_unfinished_upload_is_deleted_only_when_it_is_gone(rows: Rows, settings: Settings) -> None:
    """The row stays while a copy is open, and goes with its custody rows after."""
    job = await cut(rows, await rows.received())
    assert not await rows.jobs.discard(job)

    await closed(rows, job)

    assert await rows.jobs.discard(job)
    assert await count(settings, "jobs") == await count(settings, "custody") == 0


async def test_nobody_discards_what_somebody_is_discarding(rows: Rows, settings: Settings) -> None:
    """A pass over unfinished uploads does not take one away from whoever has just begun."""
    await rows.received(within_s=-1)
    (taken,) = await rows.jobs.abandoned(uuid4())

    assert await rows.jobs.abandoned(uuid4()) == []

    await run_sql(settings, "UPDATE jobs SET settling_until = now() - interval '1 second'")
    assert [job.id for job in await rows.jobs.abandoned(uuid4())] == [taken.id]


async def test_a_release_names_its_fence(rows: Rows) -> None:
    """A worker that had a job twice lets go of the first run without touching the second."""
    job = await rows.queued()
    worker = await rows.process()
    first = await rows.jobs.claim(job.id, worker)
    assert first is not None
    await rows.jobs.retry(first)
    second = await rows.jobs.claim(job.id, worker)
    assert second is not None

    await rows.custody.release(job.id, Held(process=worker, fence=first.fence), Evidence.OVERWRITTEN)

    assert [c.fence for c in await rows.custody.copies(job.id) if c.holder == "process" and c.is_open] == [second.fence]


async def test_what_a_process_holds_can_be_asked(rows: Rows) -> None:
    """Open rows and running jobs of a process, and of no other, older than a moment."""
    running = await rows.running()
    await rows.running()
    assert running.owner is not None
    expected = [(running.id, Held(process=running.owner, fence=running.fence))]

    assert await rows.custody.held_by(running.owner, before_s=0) == expected
    assert await rows.custody.held_by(running.owner, before_s=60) == []

    await rows.custody.release(running.id, expected[0][1], Evidence.OVERWRITTEN)
    assert await rows.custody.held_by(running.owner, before_s=0) == expected
    await rows.jobs.retry(running)
    assert await rows.custody.held_by(running.owner, before_s=0) == []


async def test_deadlocks_are_an_absence_of_the_store(rows: Rows) -> None:
    """A job's row and its custody rows locked in both orders: nobody sees a raw error, and the rows add up."""

    async def release(job: Job) -> None:
        assert job.owner is not None
        await rows.custody.release(job.id, Held(process=job.owner, fence=job.fence), Evidence.OVERWRITTEN)

    for _ in range(10):
        job = await rows.running()
        answers = await asyncio.gather(
            rows.jobs.retry(job), release(job), rows.jobs.retry(job), release(job), return_exceptions=True
        )
        raw = [a for a in answers if isinstance(a, Exception) and not hasattr(a, "code")]
        assert raw == []
        assert (await rows.get(job)).open_copies == len([c for c in await rows.custody.copies(job.id) if c.is_open])

"""The verbs of the job store in any order, by actors who remember old fences: what must hold after every one."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from typing import ClassVar, TypeVar
from uuid import UUID, uuid4

import asyncpg
from hypothesis import HealthCheck
from hypothesis import settings as limits
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from broker.custody import Evidence, Held, Holder, NewCopy, What
from broker.errors import HolderStillAlive, IllegalTransition
from broker.jobs import FINAL_STATES, TRANSITIONS, Job, JobState, Outcome
from broker.settings import Settings
from tests.rows import ADMISSION, Rows, begun_by, open_rows

T = TypeVar("T")

EMPTY = """
ALTER TABLE custody DISABLE TRIGGER all_custody_kept;
TRUNCATE processes, jobs, custody, uploads, outputs, attempts, receipts CASCADE;
ALTER TABLE custody ENABLE TRIGGER all_custody_kept;
"""
LOOK = """
SELECT jobs.id, state, fence, version, attempts, crashes, open_copies,
       (SELECT count(*) FROM custody WHERE job_id = jobs.id AND closed_at IS NULL AND domain = 'ours'
                                       AND what <> 'output') AS really_open,
       (SELECT count(*) FROM receipts WHERE job_id = jobs.id) AS receipts,
       (SELECT count(*) FROM custody WHERE job_id = jobs.id AND holder = 'process' AND closed_at IS NULL
                                       AND detail = 'worker' AND fence = jobs.fence) AS holders
FROM jobs
"""
WORDS = {Holder.KEY: Evidence.SHREDDED, Holder.BLOB: Evidence.ABSENT, Holder.PROCESS: Evidence.OVERWRITTEN}


class JobMachine(RuleBasedStateMachine):
    """Every actor acts on a snapshot of a job that may be long out of date."""

    settings_of_database: ClassVar[Settings]
    reached: ClassVar[set[str]] = set()
    snapshots = Bundle[Job]("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._before: dict[UUID, asyncpg.Record] = {}
        self._claims: dict[UUID, int] = {}

    def do(self, work: Coroutine[object, object, T]) -> T | None:
        """Let an actor act; that he is refused is no fault."""
        with suppress(IllegalTransition):
            done = self._runner.run(work)
            if isinstance(done, Job):
                self.reached.add(done.state)
            return done
        return None

    @initialize()
    def begin(self) -> None:
        self._runner.run(self._begin())

    async def _begin(self) -> None:
        self.rows: Rows = await self._stack.enter_async_context(open_rows(self.settings_of_database))
        async with self.rows.stores.database.connection() as connection:
            await connection.execute(EMPTY)
        self.worker = await self.rows.process()
        self.broker = await self.rows.process()

    def teardown(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    @rule(target=snapshots)
    def receive(self) -> Job:
        job = self.do(self.rows.jobs.receive(self.rows.new(self.broker), begun_by(self.broker)))
        assert job is not None
        return job

    @rule(target=snapshots)
    def submit(self) -> Job:
        job = self.receive_and_admit()
        assert job.state is JobState.QUEUED
        return job

    def receive_and_admit(self) -> Job:
        received = self.do(self.rows.jobs.receive(self.rows.new(self.broker), begun_by(self.broker)))
        assert received is not None
        queued = self.do(self.rows.jobs.admit(received, ADMISSION))
        assert queued is not None
        return queued

    @rule(target=snapshots, job=snapshots)
    def take_over(self, job: Job) -> Job:
        new = self.rows.new(self.broker, public_id=job.public_id)
        return self.do(self.rows.jobs.take_over(new, begun_by(self.broker))) or job

    @rule(target=snapshots, job=snapshots)
    def admit(self, job: Job) -> Job:
        return self.do(self.rows.jobs.admit(job, ADMISSION)) or job

    @rule(target=snapshots, job=snapshots)
    def claim(self, job: Job) -> Job:
        claims = self._runner.run(self._claim_thrice(job.id))
        won = [claim for claim in claims if claim is not None]
        assert len(won) <= 1
        self._claims[job.id] = self._claims.get(job.id, 0) + len(won)
        return won[0] if won else job

    async def _claim_thrice(self, job_id: UUID) -> list[Job | None]:
        return await asyncio.gather(*(self.rows.jobs.claim(job_id, self.worker) for _ in range(3)))

    @rule(target=snapshots, job=snapshots)
    def retry(self, job: Job) -> Job:
        return self.do(self.rows.jobs.retry(job)) or job

    @rule(target=snapshots, job=snapshots, outcome=st.sampled_from(Outcome))
    def begin_settling(self, job: Job, outcome: Outcome) -> Job:
        return self.do(self.rows.jobs.begin_settling(job, outcome, owner=self.broker)) or job

    @rule(target=snapshots, job=snapshots)
    def cut(self, job: Job) -> Job:
        return self.do(self.rows.jobs.cut(job, self.broker)) or job

    @rule(job=snapshots)
    def discard(self, job: Job) -> None:
        self.do(self.rows.jobs.discard(job))

    @rule(job=snapshots, what=st.sampled_from([What.OUTPUT, What.PARAMETERS]))
    def open_copy(self, job: Job, what: What) -> None:
        self.do(self.rows.custody.open(job, [NewCopy(holder=Holder.BLOB, what=what, ref=uuid4().hex)]))

    @rule(job=snapshots)
    def release(self, job: Job) -> None:
        held = Held(process=self.worker, fence=job.fence)
        self.do(self.rows.custody.release(job.id, held, Evidence.OVERWRITTEN))

    @rule(job=snapshots, everything=st.booleans())
    def close(self, job: Job, everything: bool) -> None:
        self._runner.run(self._close(job, everything=everything))

    async def _close(self, job: Job, *, everything: bool) -> None:
        copies = await self.rows.custody.copies(job.id)
        await self.rows.custody.close({copy.id: WORDS[copy.holder] for copy in (copies if everything else copies[:1])})

    @rule(job=snapshots)
    def finish(self, job: Job) -> None:
        with suppress(HolderStillAlive):
            self.do(self.rows.jobs.finish(job, note="note", outputs_for_s=60))

    @rule(job=snapshots)
    def settle(self, job: Job) -> None:
        self._runner.run(self._close(job, everything=True))
        self.finish(job)

    @rule(target=snapshots, outcome=st.sampled_from(Outcome))
    def run_through(self, outcome: Outcome) -> Job:
        queued = self.receive_and_admit()
        running = self.do(self.rows.jobs.claim(queued.id, self.worker))
        assert running is not None
        self._claims[queued.id] = 1
        settling = self.do(self.rows.jobs.begin_settling(running, outcome, owner=self.broker))
        assert settling is not None
        self._runner.run(self._close(settling, everything=True))
        assert self.do(self.rows.jobs.finish(settling, note="note", outputs_for_s=60)) is not None
        return running

    @rule()
    def worker_dies(self) -> None:
        self._runner.run(self._dies())

    async def _dies(self) -> None:
        async with self.rows.stores.database.connection() as connection:
            await connection.execute(
                "UPDATE processes SET lease_until = now() - interval '3 seconds' WHERE id = $1", self.worker
            )
        self.worker = await self.rows.process()

    @rule(target=snapshots, max_crashes=st.integers(1, 3))
    def rescue(self, max_crashes: int) -> MultipleResults[Job]:
        rescued = self._runner.run(self.rows.jobs.rescue(max_crashes=max_crashes))
        given_up = self._runner.run(self.rows.jobs.give_up(self.broker, at_most=50, max_crashes=max_crashes))
        assert not {job.id for job in rescued} & {job.id for job in given_up}
        assert all(job.crashes < max_crashes for job in rescued)
        return multiple(*rescued, *given_up)

    @rule(target=snapshots)
    def time_passes(self) -> MultipleResults[Job]:
        return multiple(*self._runner.run(self._time_passes()))

    async def _time_passes(self) -> list[Job]:
        async with self.rows.stores.database.connection() as connection:
            await connection.execute(
                "UPDATE jobs SET settling_until = now() - interval '1 second' WHERE settling_until > now()"
            )
        settling = await self.rows.jobs.resume_settling(self.broker, at_most=50)
        return settling + await self.rows.jobs.abandoned(self.broker)

    @rule(job=consumes(snapshots))
    def forget(self, job: Job) -> None:
        del job
        self._runner.run(self.rows.jobs.forget(records_for_s=0))

    @invariant()
    def the_law_holds(self) -> None:
        if not hasattr(self, "rows"):
            return
        now = {row["id"]: row for row in self._runner.run(self.rows.stores.database.rows(LOOK))}
        for job_id, row in now.items():
            self.reached.add(row["state"])
            _lawful(row)
            assert row["attempts"] == self._claims.get(job_id, 0)
            if job_id in self._before:
                _lawful_step(self._before[job_id], row)
        self._before = now


def _lawful(row: asyncpg.Record) -> None:
    """What holds of a job at any moment."""
    is_final = row["state"] in FINAL_STATES
    assert row["open_copies"] == row["really_open"]
    assert row["receipts"] == (1 if is_final else 0)
    assert not (is_final and row["open_copies"])
    assert row["holders"] <= 1


def _lawful_step(before: asyncpg.Record, after: asyncpg.Record) -> None:
    """What holds from one step to the next."""
    was, is_ = JobState(before["state"]), JobState(after["state"])
    if was in FINAL_STATES:
        assert (is_, after["version"], after["fence"]) == (was, before["version"], before["fence"])
    elif was is not is_:
        assert is_ in TRANSITIONS[was]
        assert after["version"] > before["version"]
    assert after["fence"] >= before["fence"]
    assert after["crashes"] >= before["crashes"]


def test_the_law_holds_whatever_is_done(settings: Settings) -> None:
    """No order of verbs, deaths and old fences breaks custody, the drawing, or the one receipt."""

    class Machine(JobMachine):
        settings_of_database = settings

    run_state_machine_as_test(
        Machine,
        settings=limits(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
    assert Machine.reached == {state.value for state in JobState}

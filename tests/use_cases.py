"""The machine of use cases: what clients and workers do and what befalls them, for hypothesis to put in any order."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import ClassVar
from uuid import UUID, uuid4

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from broker.errors import BrokerError
from broker.jobs import Job, Outcome
from broker.rights import erasure_id
from broker.store.attempts import NewAttempt
from providers.base import Deletes, Exposure, Handle, Part
from tests.simulated_world import AT_PROVIDER, Stream, World
from tests.simulation import (
    DEADLINE_S,
    SimulatedBell,
    SimulatedBlobs,
    SimulatedChanges,
    SimulatedKeyholder,
    Sky,
    Worker,
)
from tests.stack import PipeGuard, submission

WORKERS = 2


class UseCases(World, RuleBasedStateMachine):
    """Two workers, one broker, one user; hypothesis decides what happens next."""

    runner: ClassVar[asyncio.Runner]
    pipe: ClassVar[PipeGuard]
    streams = Bundle[Stream]("streams")
    jobs = Bundle[Stream]("jobs")
    worker = st.integers(0, WORKERS - 1)

    def do(self, work: Coroutine[object, object, object]) -> None:
        """Let something happen; that it is refused is no fault."""
        with suppress(BrokerError):
            self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.sky = Sky()
        self.workers = [Worker(self.services, self.sky) for _ in range(WORKERS)]
        for simulated in (SimulatedKeyholder, SimulatedBlobs, SimulatedBell, SimulatedChanges):
            simulated.sky = self.sky
        SimulatedChanges.workers = self.workers
        self.ends_s: dict[UUID, float] = {}
        self.set_back_s = 0
        self.upload_keys: dict[UUID, bytes] = {}
        self.keys_of_users: dict[str, set[bytes]] = {}
        self.erased: dict[str, UUID] = {}
        self.opened: list[Stream] = []
        self.runner.run(self.make())

    # What clients do

    @rule(target=streams)
    def start_upload(self) -> Stream:
        return self._started()

    def _started(self) -> Stream:
        stream = Stream()
        self.opened.append(stream)
        self.runner.run(self._start(stream))
        return stream

    async def _start(self, stream: Stream) -> None:
        asked = await submission(self.services, start_within_s=float(DEADLINE_S), finish_within_s=float(DEADLINE_S))
        stream.user_id, stream.token = asked.user_id, asked.token
        stream.task = asyncio.create_task(self.services.intake.submit(asked, stream.chunks()))
        reading = asyncio.create_task(stream.is_read.wait())
        await asyncio.wait([stream.task, reading], return_when=asyncio.FIRST_COMPLETED)
        reading.cancel()

    @rule(target=jobs, stream=consumes(streams))
    def end_upload(self, stream: Stream) -> Stream:
        self._ended(stream)
        return stream

    def _ended(self, stream: Stream) -> None:
        self.runner.run(stream.end(is_whole=True))
        self.ends_s[stream.job_id] = self.sky.now_s + DEADLINE_S

    @rule(stream=consumes(streams))
    def break_off(self, stream: Stream) -> None:
        self.runner.run(stream.end(is_whole=False))

    @rule(target=jobs)
    def upload(self) -> Stream:
        return self._uploaded()

    def _uploaded(self) -> Stream:
        stream = self._started()
        self._ended(stream)
        return stream

    @rule(job=jobs)
    def cancel_or_delete(self, job: Stream) -> None:
        self.do(self._cancel(job.job_id))

    async def _cancel(self, job_id: UUID) -> None:
        job = await self.services.stores.jobs.get(job_id)
        if job is not None:
            await self.services.cancellation.delete(job)

    @rule(stream=jobs)
    def erase_its_user(self, stream: Stream) -> None:
        """Asked of the broker; what it cannot do now it goes on with. Asked again, it is the same request."""
        self._erase(stream)

    @rule(stream=streams)
    def erase_whoever_sends(self, stream: Stream) -> None:
        self._erase(stream)

    def _erase(self, stream: Stream) -> None:
        self.erased[stream.user_id] = erasure_id(stream.token)
        self.do(self.services.erasure.ask(stream.token, stream.user_id))

    # What workers do

    @rule(number=worker, job=jobs)
    def claim(self, number: int, job: Stream) -> None:
        if self.workers[number].can_act and job.job_id not in self.workers[number].jobs:
            self.do(self.workers[number].claim(job.job_id))

    @rule(number=worker)
    def open_key(self, number: int) -> None:
        for job in self.workers[number].jobs.values():
            self.do(self.workers[number].open(job))

    @rule(number=worker, job=jobs)
    def run(self, number: int, job: Stream) -> None:
        self._run(number, job)

    def _run(self, number: int, job: Stream) -> None:
        self.claim(number, job)
        self.open_key(number)

    @rule(number=worker, outcome=st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED]))
    def finish(self, number: int, outcome: Outcome) -> None:
        for job in list(self.workers[number].jobs.values()):
            if self.workers[number].can_act:
                self.do(self._finish(self.workers[number], job, outcome))

    async def _finish(self, worker: Worker, job: Job, outcome: Outcome) -> None:
        # Without the key there is nothing to succeed with.
        reached = outcome if job.id in worker.keys else Outcome.FAILED
        settling = await self.services.stores.jobs.begin_settling(job, reached, owner=worker.id)
        await self.services.settler.settle_or_postpone(settling, let_go=worker.wipe(job.id))

    @rule(target=jobs, number=worker)
    def have_a_job_open(self, number: int) -> Stream:
        job = self._uploaded()
        self._run(number, job)
        return job

    @rule(number=worker, outcome=st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED]))
    def do_a_whole_job(self, number: int, outcome: Outcome) -> None:
        self._run(number, self._uploaded())
        self.finish(number, outcome)

    @rule(number=worker)
    def give_back(self, number: int) -> None:
        for job in list(self.workers[number].jobs.values()):
            if self.workers[number].can_act:
                self.workers[number].wipe(job.id)
                self.do(self.services.stores.jobs.retry(job))

    @rule(number=worker, is_heard=st.booleans())
    def order(self, number: int, is_heard: bool) -> None:
        for job in self.workers[number].jobs.values():
            if self.workers[number].can_act:
                self.do(self._order(job, is_heard=is_heard))

    async def _order(self, job: Job, *, is_heard: bool) -> None:
        attempt = NewAttempt(
            id=uuid4(),
            provider=AT_PROVIDER,
            exposure=Exposure.LOGGED,
            retention_s=3600,
            deletes=Deletes.API,
            expected_usd=0.01,
            parts=tuple(Part),
        )
        await self.services.stores.attempts.begin(job, attempt)
        if is_heard:
            await self.services.stores.attempts.accepted(attempt.id, Handle(id="there", operation=job.operation))

    # What runs by itself

    @rule()
    def rescue(self) -> None:
        self.do(self.rescued())

    @rule()
    def sweep(self) -> None:
        self.do(self.services.sweep.once())

    @rule()
    def sweep_records(self) -> None:
        self.do(self.services.sweep.records())

    @rule()
    def go_on_erasing(self) -> None:
        self.do(self.services.erasure.go_on())

    @rule()
    def purge_again(self) -> None:
        self.do(self.purged())

    @rule(seconds=st.sampled_from([1, 5, 15, 45]))
    def tick(self, seconds: int) -> None:
        self.runner.run(self.time_passes(seconds))

    # Faults

    @rule(number=worker)
    def crash(self, number: int) -> None:
        self.workers[number].die()

    @rule(number=worker)
    def partition(self, number: int) -> None:
        self.workers[number].is_cut_off = True

    @rule(number=worker)
    def heal(self, number: int) -> None:
        self.workers[number].is_cut_off = False
        self.runner.run(self.renewed())

    @rule(number=worker)
    def another_worker(self, number: int) -> None:
        if not self.workers[number].is_alive or not self.workers[number].jobs:
            self.workers[number] = Worker(self.services, self.sky)
            self.do(self.workers[number].begin())

    @rule(is_away=st.booleans())
    def redis(self, is_away: bool) -> None:
        self.sky.redis_is_away = is_away

    @rule(are_silent=st.booleans())
    def blobs(self, are_silent: bool) -> None:
        self.sky.blobs_are_silent = are_silent

    @rule(is_down=st.booleans())
    def provider(self, is_down: bool) -> None:
        self.sky.provider_is_down = is_down

    @rule()
    def forget_a_shred(self) -> None:
        self.sky.shreds_to_forget = 1

    @rule()
    def lose_the_keyholder(self) -> None:
        self.sky.keyholder_dies()

    @rule(back_s=st.integers(1, 60))
    def set_the_clock_back(self, back_s: int) -> None:
        """The database's; that nothing of ours has grown younger is seen by the deadline of the keys."""
        self.set_back_s += back_s
        self.runner.run(self.shifted(-back_s))

    # The law

    @invariant()
    def the_law_holds(self) -> None:
        if hasattr(self, "sky"):
            self.runner.run(self.hold())

    def teardown(self) -> None:
        if hasattr(self, "sky"):
            self.runner.run(self.ended())
            self.pipe.deadlines()  # a pipe that nobody reads is full after some thousand examples

"""What jobs cost outside: each attempt is counted once, whoever ends it, with what its row says in the end."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from broker.attempts import Attempt, AttemptState
from broker.jobs import Job, JobState, Outcome
from broker.services import Services
from broker.settings import Settings
from broker.store.attempts import NewAttempt
from broker.store.processes import Facts, Process
from providers.base import Deletes, Exposure, Handle, Output, Part, Progress, Snapshot
from providers.failures import FailureKind, ProviderFailure
from tests.counted import Counted
from tests.desk import Desk, config, own_desk
from tests.lifecycle import eventually, reread
from tests.relay import attempts, ended, photo_bytes, running_worker, sent, settings_with
from tests.stack import hardened_facts, running_services

EXPECTED_USD = 0.25
UNTOLD = Snapshot(progress=Progress.SUCCEEDED, outputs=(Output(data=photo_bytes()),))
DONE = msgspec.structs.replace(UNTOLD, cost_usd=0.5)
REJECTED = ProviderFailure(FailureKind.CONTENT_REJECTED)
BUSY = ProviderFailure(FailureKind.OVERLOADED, after_s=0.0)
DEAR = ProviderFailure(FailureKind.CONTENT_REJECTED, cost_usd=0.125)
NEGATIVE = ProviderFailure(FailureKind.CONTENT_REJECTED, cost_usd=-1.0)
UNSENT = ProviderFailure(FailureKind.NETWORK, is_unsent=True)
NEW = NewAttempt(
    id=uuid4(),
    provider="desk",
    exposure=Exposure.LOGGED,
    retention_s=3600,
    deletes=Deletes.API,
    expected_usd=EXPECTED_USD,
    parts=(Part.UPLOAD, Part.OUTPUT, Part.RECORD),
)


class Bill:
    """Jobs at a desk, and what is written of them: in figures, in rows, in job objects."""

    def __init__(self, services: Services, settings: Settings, desk: type[Desk], counted: Counted) -> None:
        self.services = services
        self.settings = settings
        self.desk = desk
        self._counted = counted
        self._jobs: list[Job] = []

    async def sent(self, **changed: Any) -> Job:
        """Send a photo to the desk."""
        self._jobs.append(await sent(self.services, **changed))
        return self._jobs[-1]

    async def ended(self, *answers: object, **changed: Any) -> Job:
        """Send a photo that gets these answers, and wait for the end."""
        self.desk.script["submit"] = list(answers)
        return await ended(self.services, await self.sent(**changed))

    async def waiting(self) -> Job:
        """Send a photo, and wait until the desk has it under a stored handle."""
        self.desk.script["submit"] = []
        job = await self.sent()

        async def is_waiting() -> bool:
            return any(attempt.state is AttemptState.WAITING for attempt in await attempts(self.services, job))

        await eventually(is_waiting)
        return job

    async def begun(self, worker: UUID) -> Job:
        """Send a photo, and let a worker begin its order."""
        queued = await self.sent()
        job = await self.services.stores.jobs.claim(queued.id, worker)
        assert job is not None
        await self.services.stores.attempts.begin(job, msgspec.structs.replace(NEW, id=uuid4()))
        return job

    async def adds_up(self, *results: str) -> None:
        """See that figures and job objects say what the rows say, and that the rows are these."""
        rows: list[Attempt] = []
        for job in self._jobs:
            of_job = await attempts(self.services, job)
            assert (await reread(self.services, job)).cost_usd == pytest.approx(sum(a.cost_usd for a in of_job))
            rows += of_job
        assert all(not attempt.is_open for attempt in rows)
        assert sorted(attempt.kind or "succeeded" for attempt in rows) == sorted(results)
        assert self._counted.results() == Counter(results)
        assert self._counted.cost_usd() == pytest.approx(sum(attempt.cost_usd for attempt in rows))
        assert self._counted.timed() == results.count("succeeded")


@asynccontextmanager
async def lost_worker(services: Services) -> AsyncGenerator[UUID]:
    """A worker that is there for a while, and then is heard of no more."""
    process = Process(
        id=uuid4(), role="worker", facts=Facts(pool="relay", providers=("desk",), posture=hardened_facts())
    )
    await services.stores.processes.register(process, lease_s=3600)
    yield process.id
    await services.stores.processes.leave(process.id)


@pytest.fixture
async def bill(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Bill]:
    """A broker, and a desk of this test's own; nobody works there yet."""
    desk, counted = own_desk(monkeypatch), Counted(monkeypatch, "desk")
    whole = settings_with(settings, tmp_path, config(tries=3))
    async with running_services(whole) as services:
        yield Bill(services, whole, desk, counted)


async def test_what_a_worker_ends_is_counted_once(bill: Bill) -> None:
    """Told or expected, failed, tried again, never sent: figures, rows and jobs say the same."""
    async with running_worker(bill.services, bill.settings):
        ends = [
            await bill.ended(*answers)
            for answers in ((DONE,), (UNTOLD,), (REJECTED,), (BUSY, DONE), (UNSENT, DONE), (DEAR,), (NEGATIVE,))
        ]

    assert [job.cost_usd for job in ends] == pytest.approx([0.5, 0.25, 0.25, 0.75, 0.5, 0.125, 0.25])
    assert [job.code for job in ends] == ["", "", "content_rejected", "", "", "content_rejected", "content_rejected"]
    await bill.adds_up(*["succeeded"] * 4, *["content_rejected"] * 3, "overloaded", "network")


async def test_an_order_that_could_not_be_made_is_counted(bill: Bill) -> None:
    """No file is small enough for the provider: an attempt that costs nothing, and no picture left us."""
    bill.desk.terms = msgspec.structs.replace(bill.desk.terms, max_picture_bytes=1)
    async with running_worker(bill.services, bill.settings):
        job = await bill.ended(DONE)

    assert (job.code, job.cost_usd) == ("unsupported", 0)
    await bill.adds_up("unsupported")


async def test_what_a_cancel_or_the_deadline_ends_is_counted(bill: Bill) -> None:
    """Neither has a worker that waits for it any more: settle ends the attempt, and it costs what was expected."""
    async with running_worker(bill.services, bill.settings):
        job = await bill.waiting()
        await bill.services.cancellation.delete(await reread(bill.services, job))
        late = await bill.ended(finish_within_s=2.0)

    assert (late.state, late.cost_usd) == (JobState.EXPIRED, pytest.approx(EXPECTED_USD))
    await bill.adds_up("canceled", "canceled")


async def test_what_a_lost_worker_began_is_counted_by_who_ends_it(bill: Bill) -> None:
    """One order is waited for after the rescue; of the other nobody has a handle, so that it is uncertain."""
    bill.desk.script["poll"] = [DONE]
    async with lost_worker(bill.services) as worker:
        told = await bill.begun(worker)
        untold = await bill.begun(worker)
        (attempt,) = await attempts(bill.services, told)
        await bill.services.stores.attempts.accepted(attempt.id, Handle(id="p1", operation="upscale"))
    async with running_worker(bill.services, bill.settings):
        ends = [await ended(bill.services, job) for job in (told, untold)]

    assert [(job.state, job.crashes) for job in ends] == [(JobState.SUCCEEDED, 1), (JobState.FAILED, 1)]
    await bill.adds_up("succeeded", "uncertain")


@pytest.mark.parametrize(("outcome", "result"), [(Outcome.SUCCEEDED, "succeeded"), (Outcome.FAILED, "canceled")])
async def test_what_settle_ends_for_a_dead_worker_is_counted(bill: Bill, outcome: Outcome, result: str) -> None:
    """kill -9 between the decision and the attempt's own end: whoever settles ends it, however often it is settled."""
    async with lost_worker(bill.services) as worker:
        job = await bill.begun(worker)
        settling = await bill.services.stores.jobs.begin_settling(
            job, outcome, owner=bill.services.lease.process.id, code="" if outcome is Outcome.SUCCEEDED else "internal"
        )
    copies = await bill.services.stores.custody.copies(job.id)
    await bill.services.purges.at_settle(job.id, copies)  # as one that died before it could finish
    await bill.services.settler.settle(settling)

    await bill.adds_up(result)

"""The use case submit(): ask the policies, open custody, take everything in encrypted, hand over keys, queue, ring."""

import asyncio
import hmac
import math
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from functools import partial
from uuid import UUID, uuid4

import msgspec
import structlog

from broker.changes import Change, Changes
from broker.custody import KeptAt
from broker.deposit import Deposit
from broker.door import Door
from broker.errors import (
    IllegalTransition,
    JobConflict,
    QueueUnavailable,
    StoreUnavailable,
    UploadIncomplete,
    UploadSuperseded,
)
from broker.incoming import Body, Delivery, alone
from broker.jobs import Job, JobState
from broker.lease import Lease
from broker.operations import find_operation
from broker.queue import Bell
from broker.sameness import Fingerprint
from broker.secret_memory import wipe
from broker.settle import Settler
from broker.store.blobs import new_name
from broker.store.job_values import Admission, NewJob
from broker.store.stores import Stores
from broker.submission import TEXTS_N, Patience, Place, Submission, first_copies, new_key_id
from broker.undoing import Undoing
from policies.base import Admit

log = structlog.get_logger()

UNHEARD_S = 15.0
"""No statement takes this long, so that what began earlier was answered, or its answer is lost."""
FORM_FACTOR = 4
"""A request of several pictures may be as large as so many of the largest single ones."""


class Intake:
    """Takes work in."""

    def __init__(
        self,
        stores: Stores,
        *,
        bell: Bell,
        changes: Changes,
        settler: Settler,
        door: Door,
        lease: Lease,
        patience: Patience,
    ) -> None:
        self._jobs = stores.jobs
        self._custody = stores.custody
        self._keys = stores.keys
        self._blobs = stores.blobs
        self._bell = bell
        self._settler = settler
        self._door = door
        self._lease = lease
        self._patience = patience
        self._streams: dict[tuple[UUID, int], Body] = {}
        self._undoing = Undoing(stores, settler=settler, lease=lease)
        changes.listen(self._cut_superseded)

    @property
    def receiving(self) -> int:
        """How many uploads are being read."""
        return len(self._streams)

    def bounded(self, chunks: AsyncIterator[bytes], *, factor: int = 1) -> Body:
        """Bound a request's body: in size by the profile's limit (times `factor`), and in how long it stands still."""
        return Body(chunks, max_bytes=self._door.max_upload_bytes * factor, idle_s=self._patience.idle_s)

    async def submit(self, submission: Submission, body: AsyncIterator[bytes]) -> tuple[Job, bool]:
        """Take in a job whose body is its only picture; see `deliver`."""
        return await self.deliver(submission, alone(self.bounded(body)))

    async def deliver(self, submission: Submission, delivery: Delivery) -> tuple[Job, bool]:
        """Return the job, and whether this request made it; a repeated one gets the same job again."""
        try:
            return await self._submit(submission, delivery)
        finally:
            wipe(submission.texts)

    async def let_go(self) -> None:
        """Cut every stream: this process may hold nothing any more."""
        for stream in self._streams.values():
            stream.cut(StoreUnavailable("this process has no lease"))

    async def reconcile(self) -> None:
        """Undo what Postgres says that we hold and we do not: the answer to a write that began it was lost."""
        for job_id, held in await self._custody.held_by(self._lease.process.id, before_s=UNHEARD_S):
            if (job_id, held.fence) not in self._streams and (job_id, held.fence) not in self._undoing:
                job = await self._jobs.get(job_id)
                if job is not None:
                    log.warning("upload_unaccounted", job_id=str(job_id))
                    self._undoing.begin(msgspec.structs.replace(job, fence=held.fence))

    async def aclose(self) -> None:
        """Wait a while for what is being undone."""
        await self._undoing.aclose()

    async def _submit(self, submission: Submission, delivery: Delivery) -> tuple[Job, bool]:
        known, usage = await self._jobs.look(submission.user_id, submission.public_id)
        if known is not None and known.state is not JobState.RECEIVING:
            return await self._replay(known, submission, delivery), False
        new = await self._new_job(submission, delivery)
        admit = self._door.ask(submission, usage, await self._door.standing(submission))
        await self._door.check_targets(submission)
        await self._bell.ping()
        await self._door.require_posture()
        kept_at = await self._keys.pick()
        places = [_place(n, kept_at) for n in _first(submission, delivery)]
        with ExitStack() as holding:
            holding.enter_context(self._lease.hold())
            job = await self._receive(new, places)
            if job is not None:
                return await self._take_in(job, places, submission, delivery, admit=admit, holding=holding), True
        known = await self._jobs.find(submission.user_id, submission.public_id)
        if known is None or known.state is JobState.RECEIVING:
            raise UploadSuperseded
        return await self._replay(known, submission, delivery), False

    async def _new_job(self, submission: Submission, delivery: Delivery) -> NewJob:
        least = find_operation(submission.operation).pictures.min
        job_id = uuid4()
        return NewJob(
            id=job_id,
            public_id=submission.public_id,
            user_id=submission.user_id,
            operation=submission.operation,
            parameters=submission.parameters,
            profile=self._door.profile,
            pool=await self._door.pool_for(submission, max(least, delivery.has_pictures), job_id=job_id),
            owner=self._lease.process.id,
            within_s=self._patience.within_s,
            price=self._door.price(submission.operation),
            is_sealed=self._door.is_sealing,
        )

    async def _receive(self, new: NewJob, places: list[Place]) -> Job | None:
        copies = first_copies(places, new.owner)
        if job := await self._jobs.receive(new, copies):
            return job
        if job := await self._jobs.take_over(new, copies):
            await self._settler.announce(job)
            return job
        # What was there may have been an upload that was refused, and is undone by now: the id is free.
        return await self._jobs.receive(new, copies)

    async def _take_in(
        self,
        job: Job,
        places: list[Place],
        submission: Submission,
        delivery: Delivery,
        *,
        admit: Admit,
        holding: ExitStack,
    ) -> Job:
        self._streams[job.id, job.fence] = delivery.body
        try:
            admission = await self._keep(job, places, submission, delivery, admit=admit)
            holding.close()  # a slow Postgres must not cost a process that holds nothing its life
            queued = await self._queue(job, admission)
        except BaseException as exc:
            self._undoing.begin(job)
            if isinstance(exc, TimeoutError):
                raise UploadIncomplete from exc
            raise
        finally:
            del self._streams[job.id, job.fence]
        with suppress(QueueUnavailable):  # rescue rings again for what nobody claims
            await self._bell.ring(queued.id, fence=queued.fence, pool=queued.pool)
        log.info("job_queued", job_id=str(job.id), operation=job.operation)
        return queued

    async def _keep(
        self, job: Job, places: list[Place], submission: Submission, delivery: Delivery, *, admit: Admit
    ) -> Admission:
        # Everything is wiped before the job is queued, since that write says so.
        deposit = Deposit(self._blobs, self._keys, Fingerprint(submission.token))
        try:
            async with asyncio.timeout(self._patience.within_s):
                await self._fill(deposit, job, places, submission, delivery)
            fingerprint = _finished(deposit.fingerprint, submission)
            await deposit.hand_over(ttl_s=math.ceil(admit.finish_within_s))
        finally:
            deposit.wipe()
            wipe(submission.texts)
        return Admission(
            uploads=tuple(deposit.uploads),
            fingerprint=fingerprint,
            targets=submission.targets,
            start_within_s=admit.start_within_s,
            finish_within_s=admit.finish_within_s,
        )

    async def _fill(
        self, deposit: Deposit, job: Job, places: list[Place], submission: Submission, delivery: Delivery
    ) -> None:
        ready = {place.n: place for place in places}
        if TEXTS_N in ready:
            await deposit.keep_texts(ready[TEXTS_N], submission.texts)
        operation, count = find_operation(submission.operation), 0
        async for picture in delivery.pictures:
            operation.require_pictures(max(count + 1, operation.pictures.min))
            place = ready.get(count) or await delivery.body.unless_cut(self._another(job, count, places[0]))
            await deposit.keep_picture(
                place,
                picture,
                max_bytes=self._door.max_upload_bytes,
                check_size=partial(self._door.check_size, submission),
            )
            count += 1
        operation.require_pictures(count)

    async def _another(self, job: Job, n: int, first: Place) -> Place:
        place = _place(n, first.kept_at)
        try:
            await self._custody.open(job, place.copies())
        except IllegalTransition as exc:
            raise UploadSuperseded from exc
        return place

    async def _queue(self, job: Job, admission: Admission) -> Job:
        try:
            return await self._jobs.admit(job, admission)
        except IllegalTransition as exc:
            raise UploadSuperseded from exc

    async def _replay(self, known: Job, submission: Submission, delivery: Delivery) -> Job:
        fingerprint = Fingerprint(submission.token)
        try:
            async with asyncio.timeout(self._patience.within_s):
                async for picture in delivery.pictures:
                    async for chunk in picture:
                        fingerprint.update(chunk)
                    fingerprint.end_picture()
        except TimeoutError as exc:
            raise UploadIncomplete from exc
        if not hmac.compare_digest(_finished(fingerprint, submission), known.fingerprint):
            raise JobConflict
        return known

    def _cut_superseded(self, change: Change) -> None:
        for (job_id, fence), stream in self._streams.items():
            if job_id == change.id and fence < change.fence:
                stream.cut(UploadSuperseded())


def _first(submission: Submission, delivery: Delivery) -> list[int]:
    """The numbers of the uploads that come for sure, and whose custody rows are written with the job's own."""
    texts = [TEXTS_N] if submission.texts else []
    return [*texts, 0] if delivery.has_pictures else texts


def _place(n: int, kept_at: KeptAt) -> Place:
    return Place(n=n, blob=new_name(), key_id=new_key_id(), kept_at=kept_at)


def _finished(fingerprint: Fingerprint, submission: Submission) -> bytes:
    return fingerprint.finish(submission.operation, submission.parameters, submission.texts)

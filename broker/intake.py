"""The use case submit(): ask the policies, open custody, take the body in encrypted, hand over the key, queue, ring."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from functools import partial
from uuid import UUID, uuid4

import msgspec
import structlog

from broker.changes import Change, Changes
from broker.crypto.chunked import KEY_BYTES, Encryptor
from broker.custody import Held
from broker.errors import (
    BrokerError,
    IllegalTransition,
    JobConflict,
    KeyholderUnavailable,
    OperationUnavailable,
    QueueUnavailable,
    StillHeld,
    StoreUnavailable,
    Unavailable,
    UploadIncomplete,
    UploadSuperseded,
)
from broker.fleet import Fleet
from broker.incoming import Body, Fingerprint, Incoming
from broker.jobs import Job, JobState
from broker.lease import Lease
from broker.queue import Bell
from broker.refusals import refused
from broker.secret_memory import random_into, wipe
from broker.settle import Settler
from broker.store.blobs import new_name
from broker.store.jobs import Admission, NewJob, Usage
from broker.store.keys import PutAnswer
from broker.store.stores import Stores
from broker.submission import Patience, Place, Submission, first_copies, new_key_id
from policies.base import Admit, Facts, Refuse
from policies.registry import Policies

log = structlog.get_logger()

DISCARD_AGAIN_S = 1.0
CLOSE_WITHIN_S = 5.0
UNHEARD_S = 15.0
"""No statement takes this long, so that what began earlier was answered, or its answer is lost."""


class Intake:
    """Takes work in."""

    def __init__(
        self,
        stores: Stores,
        *,
        bell: Bell,
        changes: Changes,
        settler: Settler,
        policies: Policies,
        fleet: Fleet,
        lease: Lease,
        patience: Patience,
    ) -> None:
        self._jobs = stores.jobs
        self._custody = stores.custody
        self._keys = stores.keys
        self._blobs = stores.blobs
        self._bell = bell
        self._settler = settler
        self._policies = policies
        self._fleet = fleet
        self._lease = lease
        self._patience = patience
        self._streams: dict[tuple[UUID, int], Body] = {}
        self._undoing: dict[tuple[UUID, int], asyncio.Task[None]] = {}
        changes.listen(self._cut_superseded)

    @property
    def receiving(self) -> int:
        """How many uploads are being read."""
        return len(self._streams)

    async def submit(self, submission: Submission, body: AsyncIterator[bytes]) -> tuple[Job, bool]:
        """Return the job, and whether this request made it; a repeated upload gets the same job again."""
        known, usage = await self._jobs.look(submission.user_id, submission.public_id)
        if known is not None and known.state is not JobState.RECEIVING:
            return await self._replay(known, submission, body), False
        admit = await self._ask(submission, usage)
        await self._bell.ping()
        place = Place(n=0, blob=new_name(), key_id=new_key_id(), incarnation=await self._keys.incarnation())
        with ExitStack() as holding:
            holding.enter_context(self._lease.hold())
            job = await self._receive(submission, place)
            if job is not None:
                return await self._take_in(job, place, submission, admit, self._bounded(body), holding=holding), True
        known = await self._jobs.find(submission.user_id, submission.public_id)
        if known is None or known.state is JobState.RECEIVING:
            raise UploadSuperseded
        return await self._replay(known, submission, body), False

    async def let_go(self) -> None:
        """Cut every stream: this process may hold nothing any more."""
        for stream in self._streams.values():
            stream.cut(StoreUnavailable("this process has no lease"))

    async def reconcile(self) -> None:
        """Undo what Postgres says that we hold and we do not: the answer to a write that began it was lost."""
        for job_id, held in await self._custody.held_by(self._lease.process.id, before_s=UNHEARD_S):
            if (job_id, held.fence) not in self._streams.keys() | self._undoing.keys():
                job = await self._jobs.get(job_id)
                if job is not None:
                    log.warning("upload_unaccounted", job_id=str(job_id))
                    self._undo(msgspec.structs.replace(job, fence=held.fence))

    async def aclose(self) -> None:
        """Wait a while for what is being undone; the sweep of another process goes on with the rest."""
        if self._undoing:
            _, late = await asyncio.wait(self._undoing.values(), timeout=CLOSE_WITHIN_S)
            for task in late:
                task.cancel()

    async def _ask(self, submission: Submission, usage: Usage) -> Admit:
        await self._fleet.require(submission.operation)
        facts = Facts(
            operation=submission.operation,
            upload_bytes=submission.content_length,
            live_jobs=usage.live,
            jobs_last_minute=usage.last_minute,
            start_within_s=submission.start_within_s,
            finish_within_s=submission.finish_within_s,
        )
        return self._admitted(facts)

    def _admitted(self, facts: Facts) -> Admit:
        answer = self._policies.admit(facts)
        if isinstance(answer, Refuse):
            raise refused(answer)
        return answer

    async def _receive(self, submission: Submission, place: Place) -> Job | None:
        pool = self._fleet.pool_of(submission.operation)
        if pool is None:
            raise OperationUnavailable
        process = self._lease.process.id
        new = NewJob(
            id=uuid4(),
            public_id=submission.public_id,
            user_id=submission.user_id,
            operation=submission.operation,
            parameters=submission.parameters,
            profile=self._policies.profile.name,
            pool=pool,
            owner=process,
            within_s=self._patience.within_s,
        )
        job = await self._jobs.receive(new, first_copies([place], process))
        if job is None:
            job = await self._jobs.take_over(new, first_copies([place], process))
            if job is not None:
                await self._settler.announce(job)
        return job

    async def _take_in(
        self, job: Job, place: Place, submission: Submission, admit: Admit, body: Body, *, holding: ExitStack
    ) -> Job:
        self._streams[job.id, job.fence] = body
        try:
            incoming = await self._keep(place, body, submission, admit)
            holding.close()  # a slow Postgres must not cost a process that holds nothing its life
            queued = await self._queue(job, place, incoming, submission, admit=admit)
        except BaseException as exc:
            self._undo(job)
            if isinstance(exc, TimeoutError):
                raise UploadIncomplete from exc
            raise
        finally:
            del self._streams[job.id, job.fence]
        with suppress(QueueUnavailable):  # rescue rings again for what nobody claims
            await self._bell.ring(queued.id, fence=queued.fence, pool=queued.pool)
        log.info("job_queued", job_id=str(job.id), operation=job.operation)
        return queued

    async def _keep(self, place: Place, body: Body, submission: Submission, admit: Admit) -> Incoming:
        # Wiped before the job is queued, since that write says so.
        key = bytearray(KEY_BYTES)
        random_into(key)
        incoming = self._incoming(body, key, place, submission)
        try:
            async with asyncio.timeout(self._patience.within_s):
                await self._store(place, incoming)
            await self._hand_over(place, key, admit)
        finally:
            incoming.wipe()
            wipe(key)
        return incoming

    def _bounded(self, body: AsyncIterator[bytes]) -> Body:
        limits = self._policies.profile.limits
        return Body(body, max_bytes=limits.max_upload_bytes, idle_s=self._patience.idle_s)

    def _incoming(self, body: Body, key: bytearray, place: Place, submission: Submission) -> Incoming:
        return Incoming(
            body,
            Encryptor(key, context=place.blob.encode()),
            Fingerprint(submission.token),
            check_size=partial(self._check_size, submission),
        )

    def _check_size(self, submission: Submission, width: int, height: int) -> None:
        expected = self._fleet.estimate(submission.operation, submission.parameters, width, height)
        facts = Facts(
            operation=submission.operation,
            width=width,
            height=height,
            output_pixels=expected.output_pixels if expected else None,
            expected_s=expected.model_s if expected else None,
            start_within_s=submission.start_within_s,
            finish_within_s=submission.finish_within_s,
        )
        self._admitted(facts)

    async def _store(self, place: Place, incoming: Incoming) -> None:
        try:
            await self._blobs.put(place.blob, incoming.ciphertext())
        except Exception as exc:
            if isinstance(incoming.failure, BrokerError):
                raise incoming.failure from exc
            raise

    async def _hand_over(self, place: Place, key: bytearray, admit: Admit) -> None:
        # The key lives as long as the job may, by the keyholder's own clock, whatever else is alive.
        answer = await self._keys.put(
            place.key_id, key, ttl_s=math.ceil(admit.finish_within_s), incarnation=place.incarnation
        )
        if answer is not PutAnswer.OK:
            raise KeyholderUnavailable(f"the keyholder answered {answer}")

    async def _queue(self, job: Job, place: Place, incoming: Incoming, submission: Submission, *, admit: Admit) -> Job:
        assert incoming.kind is not None
        upload = place.stored(media_type=incoming.kind.media_type, size_bytes=incoming.body.size_bytes)
        admission = Admission(
            uploads=(upload,),
            fingerprint=incoming.finish(submission.operation, submission.parameters),
            start_within_s=admit.start_within_s,
            finish_within_s=admit.finish_within_s,
        )
        try:
            return await self._jobs.admit(job, admission)
        except IllegalTransition as exc:
            raise UploadSuperseded from exc

    async def _replay(self, known: Job, submission: Submission, body: AsyncIterator[bytes]) -> Job:
        fingerprint = Fingerprint(submission.token)
        try:
            async with asyncio.timeout(self._patience.within_s):
                async for chunk in self._bounded(body).chunks():
                    fingerprint.update(chunk)
        except TimeoutError as exc:
            raise UploadIncomplete from exc
        if not fingerprint.matches(known.fingerprint, submission.operation, submission.parameters):
            raise JobConflict
        return known

    def _undo(self, job: Job) -> None:
        if self._undoing.get((job.id, job.fence)) is None:
            task = asyncio.create_task(self._discard(job))
            self._undoing[job.id, job.fence] = task
            task.add_done_callback(lambda _: self._undoing.pop((job.id, job.fence)))

    async def _discard(self, job: Job) -> None:
        held = Held(process=self._lease.process.id, fence=job.fence)
        while True:
            try:
                cut = await self._jobs.cut(job, held.process)
                if cut is None:
                    return await self._drop_superseded(job, held)
                job = cut
                await self._settler.discard(job, let_go=held)
                return None
            except (Unavailable, StillHeld, TimeoutError) as exc:
                log.warning("discard_postponed", job_id=str(job.id), code=getattr(exc, "code", "timeout"))
                await asyncio.sleep(DISCARD_AGAIN_S)

    async def _drop_superseded(self, job: Job, held: Held) -> None:
        # Our row is closed when the job was queued after all (the answer to the commit was lost): leave it alone.
        copies = [copy for copy in await self._custody.copies(job.id) if copy.is_open and copy.fence == held.fence]
        if any(held.is_row(copy) for copy in copies):
            await self._settler.drop(job.id, copies, let_go=held)

    def _cut_superseded(self, change: Change) -> None:
        for (job_id, fence), stream in self._streams.items():
            if job_id == change.id and fence < change.fence:
                stream.cut(UploadSuperseded())

"""Stand-ins for custody, settle and receipts: a plain queue's rows, of which one write queues a job and one ends it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
import structlog

from broker.custody import Copy, Held, NewCopy
from broker.errors import IllegalTransition
from broker.jobs import Job, JobState, Outcome, Output, StoredUpload
from broker.settle import Settler
from broker.store import columns
from broker.store.blobs import BlobStore
from broker.store.custody import CustodyStore
from broker.store.database import Database
from broker.store.files import NAME
from broker.store.jobs import Admission, JobStore, NewJob
from broker.store.keyholders import Keyholders
from broker.store.stores import Stores, make_stores

log = structlog.get_logger()

OUTPUTS_FOR_S: Final = 3_600.0
_PARTS: Final = NAME.split(Path(__file__).with_name("jobs.sql").read_text())
SQL: Final = dict(zip(_PARTS[1::2], map(str.strip, _PARTS[2::2]), strict=True))


class QueuedJobs(JobStore):
    """Takes the place of JobStore: a job has no row before its upload is stored, and is never settling."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._arriving: dict[UUID, NewJob] = {}

    async def receive(self, new: NewJob, copies: Sequence[NewCopy]) -> Job | None:
        """Remember here what will be written once the upload is in."""
        self._arriving[new.id] = new
        return _unwritten(new)

    async def cut(self, job: Job, owner: UUID) -> Job | None:
        """Forget an upload that did not become a job."""
        self._arriving.pop(job.id, None)
        return None

    async def admit(self, job: Job, admission: Admission) -> Job:
        """Queue a job; raise IllegalTransition where its id was taken meanwhile."""
        new = self._arriving.pop(job.id)
        return await self._written(
            "insert",
            new.id,
            new.public_id,
            new.user_id,
            new.operation,
            new.parameters,
            new.profile,
            new.pool,
            admission.pictures[0].media_type if admission.pictures else "",
            sum(picture.size_bytes for picture in admission.pictures),
            admission.fingerprint,
            admission.start_within_s,
            admission.finish_within_s,
            *columns.of_uploads(admission.uploads),
        )

    async def claim(self, job_id: UUID, owner: UUID) -> Job | None:
        """Make a queued job this process's own; None when somebody else has it."""
        return await self._row("claim", job_id, owner)

    async def begin_settling(
        self, job: Job, outcome: Outcome, *, owner: UUID, code: str = "", outputs: Sequence[Output] = ()
    ) -> Job:
        """Finish it here and now."""
        return await self._written(
            "finish",
            job.id,
            job.fence,
            outcome,
            code,
            OUTPUTS_FOR_S,
            *columns.of_outputs(outputs),
        )

    async def _written(self, name: str, job_id: UUID, *values: object) -> Job:
        if (job := await self._row(name, job_id, *values)) is None:
            raise IllegalTransition(f"{name} {job_id}")
        return job

    async def _row(self, name: str, job_id: UUID, *values: object) -> Job | None:
        row = await self._database.row(SQL[name], job_id, *values)
        return None if row is None else msgspec.convert(dict(row), Job)


class NoCustody(CustodyStore):
    """Takes the place of CustodyStore: uploads and outputs are found, copies are not known."""

    def __init__(self, database: Database, *, keyholder: str) -> None:
        super().__init__(database)
        self._keyholder = keyholder

    async def open(self, job: Job, copies: Sequence[NewCopy]) -> None:
        """Write nothing."""

    async def copies(self, job_id: UUID) -> list[Copy]:
        """Nothing was written."""
        return []

    async def uploads(self, job_id: UUID) -> list[StoredUpload]:
        """Return what a job was given, without a look at custody for where its keys are."""
        rows = await self._database.rows(SQL["uploads"], job_id, self._keyholder)
        return [msgspec.convert(dict(row), StoredUpload) for row in rows]


class NoSettler(Settler):
    """Takes the place of Settler: what is decided is final; nothing is destroyed, and no receipt is made."""

    async def settle_or_postpone(self, job: Job, *, let_go: Held | None = None) -> Job | None:
        """Tell whoever waits."""
        log.info("job_finished", job_id=str(job.id), state=job.state, code=job.code, operation=job.operation)
        await self._changes.publish(job)
        return job


def queue_stores(database: Database, keys: Keyholders, blobs: BlobStore) -> Stores:
    """Take the place of make_stores()."""
    return msgspec.structs.replace(
        make_stores(database, keys, blobs),
        jobs=QueuedJobs(database),
        custody=NoCustody(database, keyholder=next(iter(keys)).address),
    )


def _unwritten(new: NewJob) -> Job:
    now = datetime.now(UTC)
    return Job(
        id=new.id,
        public_id=new.public_id,
        user_id=new.user_id,
        operation=new.operation,
        parameters=new.parameters,
        media_type="",
        profile=new.profile,
        pool=new.pool,
        state=JobState.RECEIVING,
        outcome=None,
        code="",
        version=1,
        fence=1,
        owner=new.owner,
        attempts=0,
        crashes=0,
        progress=0.0,
        open_copies=0,
        upload_bytes=0,
        fingerprint=b"",
        created_at=now,
        queued_at=None,
        started_at=None,
        decided_at=None,
        finalized_at=None,
        start_by=now,
        finish_by=now,
        outputs_until=None,
        charged=False,
        finish_within_s=new.within_s,
    )

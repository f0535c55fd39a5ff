"""Asks the stores themselves, past the broker, what they still hold of a job; it reads, and changes nothing."""

from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit
from uuid import UUID

from broker.attempts import Attempt
from broker.custody import Copy, Domain, Holder, KeptAt, What
from broker.jobs import Job
from broker.settings import Settings
from broker.store.attempts import AttemptStore
from broker.store.custody import CustodyStore
from broker.store.database import Database
from broker.store.jobs import JobStore
from broker.store.keyholders import Keyholders


class Evidence:
    """The database, the keyholder and the blob directory of one embedded stack."""

    def __init__(self, settings: Settings) -> None:
        self._database = Database(settings.postgres_dsn, connections=1)
        self._jobs = JobStore(self._database)
        self._custody = CustodyStore(self._database)
        self._attempts = AttemptStore(self._database)
        self._keyholders = Keyholders.of(settings)
        self._blobs = Path(unquote(urlsplit(settings.blobs_url).path))

    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._keyholders.aclose()
        await self._database.aclose()

    async def job(self, user_id: str, job_id: str) -> Job:
        """Return the row of a job."""
        job = await self._jobs.find(user_id, UUID(job_id))
        assert job is not None
        return job

    async def copies(self, job: Job) -> list[Copy]:
        """Return every custody row of a job."""
        return await self._custody.copies(job.id)

    async def attempts(self, job: Job) -> list[Attempt]:
        """Return every attempt of a job at a provider."""
        return await self._attempts.of_job(job.id)

    async def is_there(self, copy: Copy) -> bool:
        """Whether the store that held this copy still does: the file itself, and HAS at the keyholder."""
        if copy.holder is Holder.BLOB:
            return any(self._blobs.glob(f"{copy.ref}*"))
        if copy.holder is Holder.KEY:
            return await self._keyholders.at(KeptAt.read(copy.detail).keyholder).has(bytes.fromhex(copy.ref))
        return False


def ours(copies: list[Copy]) -> list[Copy]:
    """Leave out what providers had."""
    return [copy for copy in copies if copy.domain is Domain.OURS]


def of_upload(copies: list[Copy]) -> list[Copy]:
    """Leave out the copies of outputs, and what providers had."""
    return [copy for copy in ours(copies) if copy.what is not What.OUTPUT]


def theirs(copies: list[Copy]) -> list[Copy]:
    """Leave out what is in our own hands."""
    return [copy for copy in copies if copy.domain is Domain.PROVIDER]

"""Jobs as rows alone: no stream, no blob, no key, nobody who rescues or sweeps."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

from broker.custody import KeptAt, NewCopy, What
from broker.jobs import Job, StoredUpload
from broker.settings import Settings
from broker.store.blobs import BlobStore, new_name
from broker.store.database import Database
from broker.store.job_values import Admission, NewJob
from broker.store.keyholders import Keyholders
from broker.store.processes import Facts, Process
from broker.store.stores import Stores, make_stores
from broker.submission import Place, first_copies, new_key_id
from tests.checks import plant

KEPT_AT = KeptAt(keyholder="", incarnation=bytes(16))
UPLOAD = StoredUpload(
    n=0,
    what=What.UPLOAD,
    blob=new_name(),
    key_id=new_key_id(),
    keyholder=KEPT_AT.keyholder,
    incarnation=KEPT_AT.incarnation,
    media_type="image/jpeg",
    size_bytes=5,
)
ADMISSION = Admission(uploads=(UPLOAD,), fingerprint=b"f" * 32, start_within_s=600, finish_within_s=600)


class Rows:
    """The stores, and one user whose jobs they are."""

    def __init__(self, stores: Stores, user_id: str, kept_at: KeptAt) -> None:
        self.stores = stores
        self.kept_at = kept_at
        self.jobs = stores.jobs
        self.custody = stores.custody
        self.user_id = user_id

    async def process(self, *, lease_s: float = 3600) -> UUID:
        process = Process(id=uuid4(), role="worker", facts=Facts())
        await self.stores.processes.register(process, lease_s=lease_s)
        return process.id

    def new(self, owner: UUID, *, public_id: UUID | None = None, within_s: float = 600) -> NewJob:
        return NewJob(
            id=uuid4(),
            public_id=public_id or uuid4(),
            user_id=self.user_id,
            operation="noop",
            parameters={},
            profile="minimal",
            pool="gpu",
            owner=owner,
            within_s=within_s,
        )

    async def received(self, *, within_s: float = 600) -> Job:
        broker = await self.process()
        job = await self.jobs.receive(self.new(broker, within_s=within_s), begun_by(broker, self.kept_at))
        assert job is not None
        return job

    async def queued(self) -> Job:
        return await self.jobs.admit(await self.received(), ADMISSION)

    async def running(self, *, lease_s: float = 3600) -> Job:
        queued = await self.queued()
        job = await self.jobs.claim(queued.id, await self.process(lease_s=lease_s))
        assert job is not None
        return job

    async def get(self, job: Job) -> Job:
        found = await self.jobs.get(job.id)
        assert found is not None
        return found


def begun_by(process: UUID, kept_at: KeptAt = KEPT_AT) -> list[NewCopy]:
    """The custody rows with which the job of one picture begins."""
    return first_copies([Place(n=0, blob=new_name(), key_id=new_key_id(), kept_at=kept_at)], process)


@asynccontextmanager
async def open_rows(settings: Settings) -> AsyncGenerator[Rows]:
    database = Database(settings.postgres_dsn, connections=16)
    await database.open()
    stores = make_stores(database, Keyholders.of(settings), BlobStore(settings.blobs_url))
    try:
        new = await stores.users.mint()
        plant(new.token)
        yield Rows(stores, new.user_id, KeptAt(keyholder=settings.keyholder_socket, incarnation=bytes(16)))
    finally:
        await stores.keys.aclose()
        await database.aclose()

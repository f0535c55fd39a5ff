"""A small world for the real use cases: stores that fall silent, workers that die, and time that is told to pass.

Postgres is real, since its statements are what is to be proved; its rows grow older by being shifted. The keyholder is
the real table of keys on a clock of ours, the blob store the real one over memory.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any, ClassVar
from uuid import UUID, uuid4

import msgspec
import obstore
from obstore.store import MemoryStore

from broker.changes import Changes
from broker.custody import Evidence, Held
from broker.errors import BlobsUnavailable, KeyholderUnavailable, QueueUnavailable
from broker.frames import KEY_BYTES, Answer, Hardening, KeyholderStats, Memory
from broker.jobs import Job
from broker.keytable import KeyTable
from broker.queue import Bell
from broker.secret_memory import SecretPages, wipe
from broker.services import Services
from broker.store.blobs import BlobStore
from broker.store.keys import Keyholder, OpenAnswer, PutAnswer
from broker.store.processes import Facts, Process
from tests.stack import hardened_facts, keyholder_of

LEASE_S = 10
MARGIN_S = 1
STEP_S = 3
DEADLINE_S = 30

_PUT = {Answer.OK: PutAnswer.OK, Answer.EXISTS: PutAnswer.EXISTS, Answer.GONE: PutAnswer.GONE}
_OPEN = {Answer.KEY: OpenAnswer.OK, Answer.GONE: OpenAnswer.GONE, Answer.STALE: OpenAnswer.STALE}

# By the database's clock; what custody says of times cannot be changed, and no invariant asks for it.
SHIFT_JOBS = """
WITH age AS (SELECT $1::interval AS more)
UPDATE jobs SET created_at = created_at - more, queued_at = queued_at - more, started_at = started_at - more,
                start_by = start_by - more, finish_by = finish_by - more, settling_until = settling_until - more,
                outputs_until = outputs_until - more, not_before = not_before - more
FROM age
"""
SHIFT_ATTEMPTS = "UPDATE attempts SET purge_at = purge_at - $1::interval, purge_until = purge_until - $1::interval"
SHIFT_REQUESTS = "UPDATE requests SET resume_at = resume_at - $1::interval"
SHIFT_PROCESSES = "UPDATE processes SET lease_until = lease_until - $1::interval WHERE role = 'worker'"
RENEW = """
UPDATE processes SET lease_until = now() + $2 * interval '1 second'
WHERE id = ANY($1) AND lease_until > now()
RETURNING id
"""


class Sky:
    """What is so outside of our processes; one example of hypothesis has one."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.redis_is_away = False
        self.blobs_are_silent = False
        self.provider_is_down = False
        self.shreds_to_forget = 0
        self.keys_ever: set[bytes] = set()
        self.blobs = MemoryStore()
        self.keyholder_dies()

    def keyholder_dies(self) -> None:
        """Another one stands in its place, and knows nothing."""
        self.incarnation = secrets.token_bytes(16)
        pages = SecretPages(64 * 1024, kinds=[Memory.PLAIN])
        self.keys = KeyTable(pages, max_ttl_s=3600, max_tombstones=8192, clock=lambda: self.now_s)

    async def blob_names(self) -> list[str]:
        listed: Any = obstore.list(self.blobs)  # pyright: ignore[reportUnknownMemberType]
        return [item["path"] for item in await listed.collect_async()]

    async def blob(self, name: str) -> bytes:
        try:
            return bytes(await (await self.blobs.get_async(name)).bytes_async())
        except FileNotFoundError:  # an upload was undone meanwhile
            return b""


class SimulatedKeyholder(Keyholder):
    """The client's verbs on the sky's table; every key id gets one key, ever."""

    sky: ClassVar[Sky]

    @property
    def takes_keys(self) -> bool:
        return True

    async def put(self, key_id: bytes, key: bytearray, *, ttl_s: int, incarnation: bytes = b"") -> PutAnswer:
        if incarnation not in {b"", self.sky.incarnation}:
            raise KeyholderUnavailable
        answer = _PUT[self.sky.keys.put(key_id, memoryview(key), ttl_s=ttl_s)]
        if answer is PutAnswer.OK:
            assert key_id not in self.sky.keys_ever
            self.sky.keys_ever.add(key_id)
        return answer

    async def open_into(self, key_id: bytes, buffer: bytearray, *, fence: int) -> OpenAnswer:
        return _OPEN[self.sky.keys.open_into(key_id, memoryview(buffer), fence=fence)]

    async def shred(self, key_id: bytes, *, ttl_s: int) -> None:
        if self.sky.shreds_to_forget:
            self.sky.shreds_to_forget -= 1
            return
        self.sky.keys.shred(key_id, ttl_s=ttl_s)

    async def has(self, key_id: bytes) -> bool:
        return self.sky.keys.has(key_id) is Answer.YES

    async def incarnation(self) -> bytes:
        return self.sky.incarnation

    async def hello(self) -> bytes:
        return self.sky.incarnation

    async def stats(self) -> KeyholderStats:
        every = ~Hardening.NONE
        return msgspec.structs.replace(self.sky.keys.stats(), memory=Memory.MEMFD_SECRET, hardening=every)


class SimulatedBlobs(BlobStore):
    """The real one over the sky's memory."""

    sky: ClassVar[Sky]

    async def put(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        self._store = self.sky.blobs
        await super().put(name, chunks)

    async def destroy(self, name: str) -> None:
        if self.sky.blobs_are_silent:
            raise BlobsUnavailable
        self._store = self.sky.blobs
        await super().destroy(name)


class SimulatedBell(Bell):
    """Rings for nobody: the machine itself claims, in any order."""

    sky: ClassVar[Sky]

    async def ring(self, job_id: UUID, *, fence: int, pool: str) -> None:
        await self.ping()

    async def ping(self) -> None:
        if self.sky.redis_is_away:
            raise QueueUnavailable


class SimulatedChanges(Changes):
    """Tells this process at once, and the workers that hear; nobody while Redis is away."""

    sky: ClassVar[Sky]
    workers: ClassVar[list["Worker"]]

    async def publish(self, job: Job) -> None:
        if not self.sky.redis_is_away:
            for worker in self.workers:
                await worker.hear(job)

    async def run(self) -> None:
        await asyncio.Event().wait()


class Worker:
    """A worker as far as custody goes: it claims, opens, ends, hears, is cut off, stands still, dies."""

    def __init__(self, services: Services, sky: Sky) -> None:
        self._services = services
        self._sky = sky
        self.id = uuid4()
        self.is_alive = True
        self.is_cut_off = False
        self.left_s = LEASE_S
        self.jobs: dict[UUID, Job] = {}
        self.keys: dict[UUID, bytearray] = {}
        self.ends_s: dict[UUID, float] = {}

    @property
    def can_act(self) -> bool:
        return self.is_alive and not self.is_cut_off and self.left_s > MARGIN_S

    async def begin(self) -> None:
        facts = Facts(pool="gpu", providers=("noop",), posture=hardened_facts())
        await self._services.stores.processes.register(Process(id=self.id, role="worker", facts=facts), lease_s=LEASE_S)

    async def claim(self, job_id: UUID) -> bool:
        job = await self._services.stores.jobs.claim(job_id, self.id)
        if job is not None:
            self.jobs[job.id] = job
            self.ends_s[job.id] = self._sky.now_s + job.finish_within_s
        return job is not None

    async def open(self, job: Job) -> bool:
        """Also cut off from Postgres, and under an old fence: the keyholder may be nearer."""
        uploads = await self._services.stores.custody.uploads(job.id)
        if not uploads:  # it was erased, and somebody was slow to notice
            return False
        (upload,) = uploads
        key = bytearray(KEY_BYTES)
        answer = await keyholder_of(self._services).open_into(upload.key_id, key, fence=job.fence)
        if answer is OpenAnswer.OK:
            self.keys[job.id] = key
        return answer is OpenAnswer.OK

    def wipe(self, job_id: UUID) -> Held:
        """Let go of a job's key, and of the thought that it is ours."""
        job = self.jobs.pop(job_id)
        self.ends_s.pop(job_id)
        wipe(self.keys.pop(job_id, bytearray()))
        return Held(process=self.id, fence=job.fence)

    async def let_go(self, job_id: UUID) -> None:
        held = self.wipe(job_id)
        if self.can_act:
            await self._services.stores.custody.release(job_id, held, Evidence.OVERWRITTEN)

    async def hear(self, job: Job) -> None:
        if self.can_act and job.id in self.jobs and self.jobs[job.id].fence != job.fence:
            await self.let_go(job.id)

    async def reconcile(self) -> None:
        """With a renewal: what is no longer ours is let go."""
        ours = await self._services.stores.jobs.running_of(self.id)
        for job_id, job in list(self.jobs.items()):
            if ours.get(job_id) != job.fence:
                await self.let_go(job_id)

    def die(self) -> None:
        self.is_alive = False
        for job_id in list(self.jobs):
            self.wipe(job_id)

    async def grow_older(self, by_s: int) -> None:
        """The job's own deadline, and the guard's: neither asks anybody."""
        self.left_s -= by_s
        for job_id, end_s in list(self.ends_s.items()):
            if self._sky.now_s >= end_s:
                await self.let_go(job_id)
        if self.left_s <= MARGIN_S and self.jobs:
            self.die()

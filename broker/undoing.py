"""Undoes what did not become a job: its copies are destroyed and its row deleted, however long a store is away."""

import asyncio
from uuid import UUID

import structlog

from broker.custody import Held
from broker.errors import StillHeld, Unavailable
from broker.jobs import Job
from broker.lease import Lease
from broker.settle import Settler
from broker.store.stores import Stores

log = structlog.get_logger()

DISCARD_AGAIN_S = 1.0
CLOSE_WITHIN_S = 5.0


class Undoing:
    """The unfinished uploads that this process destroys in the background."""

    def __init__(self, stores: Stores, *, settler: Settler, lease: Lease) -> None:
        self._jobs = stores.jobs
        self._custody = stores.custody
        self._settler = settler
        self._lease = lease
        self._tasks: dict[tuple[UUID, int], asyncio.Task[None]] = {}

    def __contains__(self, of: tuple[UUID, int]) -> bool:
        """Say whether the upload of a job under a fence is being undone."""
        return of in self._tasks

    def begin(self, job: Job) -> None:
        """Undo a job that is still coming in, of which this process holds nothing any more; once per fence."""
        if (job.id, job.fence) not in self._tasks:
            task = asyncio.create_task(self._discard(job))
            self._tasks[job.id, job.fence] = task
            task.add_done_callback(lambda _: self._tasks.pop((job.id, job.fence)))

    async def aclose(self) -> None:
        """Wait a while for what is being undone; the sweep of another process goes on with the rest."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=CLOSE_WITHIN_S)
            for task in late:
                task.cancel()

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

"""Data past its time: unfinished uploads, outputs, records, idle users, blobs whose store was silent."""

import asyncio
import random
from collections.abc import Awaitable, Iterable

import structlog

from broker.errors import BrokerError
from broker.jobs import Job
from broker.lease import Lease
from broker.purges import Purges
from broker.settle import Settler
from broker.store.jobs import BATCH
from broker.store.stores import Stores
from policies.retention import Retention

log = structlog.get_logger()

ORPHANED_AFTER_S = 3600.0
"""A purge that no worker has finished this long after its time never will be: its copies are `unknown`."""


class Sweep:
    """Runs in every broker and every worker, so that either side alone suffices."""

    def __init__(
        self,
        stores: Stores,
        *,
        settler: Settler,
        purges: Purges,
        lease: Lease,
        every_s: float,
        retention: Retention,
    ) -> None:
        self._jobs = stores.jobs
        self._custody = stores.custody
        self._outputs = stores.outputs
        self._processes = stores.processes
        self._users = stores.users
        self._links = stores.links
        self._sessions = stores.sessions
        self._blobs = stores.blobs
        self._attempts = stores.attempts
        self._requests = stores.requests
        self._notifications = stores.notifications
        self._credits = stores.credits
        self._audit = stores.audit
        self._settler = settler
        self._purges = purges
        self._lease = lease
        self._every_s = every_s
        self._retention = retention

    async def run(self) -> None:
        """Pass after pass until cancelled; what fails is tried again in the next one."""
        passes = 0
        while True:
            await asyncio.sleep(self._every_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the passes
            await self._quietly(self.once())
            if passes % 60 == 0:
                await self._quietly(self.records())
            passes += 1

    async def once(self) -> None:
        """Destroy unfinished uploads and outputs whose time is up, side by side: one that stays holds up no other."""
        await self._all([self._discard(job) for job in await self._jobs.abandoned(self._lease.process.id)])
        await self._all([self._settler.destroy_outputs(job_id, n=n) for job_id, n in await self._outputs.due()])
        stray = await self._custody.stray_outputs(idle_for_s=self._retention.idle_user_for_s)
        await self._all([self._settler.destroy_outputs(job_id) for job_id in stray])

    async def records(self) -> None:
        """Delete rows whose time is up, and ciphertext that could not be deleted when its key was shredded."""
        await self._delete_unreadable()
        # Batch after batch: a busy server finishes more jobs in a minute than one statement takes.
        while await self._jobs.forget(records_for_s=self._retention.records_for_s) == BATCH:
            continue
        orphaned = await self._attempts.orphaned(after_s=ORPHANED_AFTER_S)
        await self._all([self._purges.go_on(attempt) for attempt in orphaned])
        await self._users.forget_idle(idle_for_s=self._retention.idle_user_for_s)
        await self._links.forget_tokens(idle_for_s=self._retention.idle_user_for_s)
        await self._sessions.forget()
        await self._notifications.forget()
        await self._credits.forget_purchases()
        await self._requests.forget(records_for_s=self._retention.records_for_s)
        await self._audit.delete_old()
        await self._processes.forget_dead()
        await self._ring()

    async def _ring(self) -> None:
        _, overdue = await self._requests.counts()
        if overdue:
            log.error("requests_overdue", count=overdue)

    async def _delete_unreadable(self) -> None:
        # Batch after batch, as a long silence leaves many; where one stays, the store may be silent again.
        while blobs := await self._custody.unreadable():
            if not await self._all([self._delete(copy_id, blob) for copy_id, blob in blobs.items()]):
                return

    async def _all(self, works: Iterable[Awaitable[object]]) -> bool:
        """Do all of it side by side, and say whether nothing failed."""
        return all(await asyncio.gather(*(self._quietly(work) for work in works)))

    async def _quietly(self, work: Awaitable[object]) -> bool:
        try:
            await work
        except (BrokerError, TimeoutError) as exc:
            log.warning("sweep_failed", code=getattr(exc, "code", "timeout"))
        except Exception:
            # One row that cannot be swept must not end the process, and with it every other row's sweep.
            log.exception("sweep_broke")
        else:
            return True
        return False

    async def _delete(self, copy_id: int, blob: str) -> None:
        await self._blobs.destroy(blob)
        await self._custody.swept(copy_id)

    async def _discard(self, job: Job) -> None:
        if await self._settler.discard(job):
            log.info("upload_discarded", job_id=str(job.id))

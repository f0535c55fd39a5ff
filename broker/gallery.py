"""The use case of a gallery: outputs destroyed one by one, or all of a user's, at the user's word."""

import asyncio
from uuid import UUID

import msgspec
import structlog

from broker.errors import StillHeld, Unavailable
from broker.settle import Settler
from broker.store.stores import Stores

log = structlog.get_logger()

AT_ONCE = 8
WITHIN_S = 20.0


class Emptied(msgspec.Struct, frozen=True, kw_only=True):
    """How many outputs are destroyed, and how many are not served any more and will be."""

    destroyed: int
    pending: int


class Gallery:
    """Destroys outputs; what a silent store keeps from it is the sweep's to finish, since the rows say so already."""

    def __init__(self, stores: Stores, *, settler: Settler) -> None:
        self._outputs = stores.outputs
        self._settler = settler

    async def destroy(self, job_id: UUID, n: int) -> bool:
        """Destroy one output; False when it is not served any more, and not seen to be gone yet."""
        await self._outputs.doom(job_id, n)
        return await self._destroyed(job_id, n)

    async def destroy_all(self, user_id: str) -> Emptied:
        """Destroy whatever a user has; jobs that are not final are let alone, and so is what they will make."""
        doomed = await self._outputs.doom_all(user_id)
        room, gone = asyncio.Semaphore(AT_ONCE), set[tuple[UUID, int]]()

        async def one(job_id: UUID, n: int) -> None:
            async with room:
                if await self._destroyed(job_id, n):
                    gone.add((job_id, n))

        try:
            async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
                for job_id, n in doomed:
                    tasks.create_task(one(job_id, n))
        except TimeoutError:
            log.info("gallery_unfinished", count=len(doomed) - len(gone))
        return Emptied(destroyed=len(gone), pending=len(doomed) - len(gone))

    async def _destroyed(self, job_id: UUID, n: int) -> bool:
        try:
            await self._settler.destroy_outputs(job_id, n=n)
        except (StillHeld, Unavailable) as exc:
            log.warning("output_destroyed_later", job_id=str(job_id), code=exc.code)
            return False
        return True

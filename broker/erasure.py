"""The use case of erasure: live jobs ended, outputs destroyed, rows deleted, the user last; any process can go on."""

import asyncio
import random
from collections.abc import Awaitable, Iterable, Sequence
from uuid import UUID, uuid4

import msgspec
import structlog

from broker.account_errors import UserNotFound
from broker.cancel import Cancellation
from broker.custody import Copy
from broker.errors import BrokerError, JobNotFound, Unauthenticated
from broker.jobs import Job
from broker.rights import Request, erased_mark, erasure_id
from broker.settle import Settler
from broker.store.erasures import LEASE_S
from broker.store.stores import Stores
from policies.rights import Rights

log = structlog.get_logger()

EVERY_S = 1.0
WITHIN_S = 20.0
"""How long whoever asks waits; the sweep goes on with the rest."""
ROUNDS = 3
"""What came in while the user was marked is found by looking again."""
PAUSE_S = 0.2
AT_ONCE = 16
MOST_RECEIPTS = 2_000


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """How an erasure stands, and the receipts of the jobs that went with this call."""

    request: Request
    receipts: list[str]
    receipts_left_out: int


class Erasure:
    """Erases users; two at once are one, and each step may be repeated by anybody."""

    def __init__(self, stores: Stores, *, settler: Settler, cancellation: Cancellation, rights: Rights) -> None:
        self._erasures = stores.erasures
        self._requests = stores.requests
        self._holds = stores.holds
        self._blobs = stores.blobs
        self._settler = settler
        self._cancellation = cancellation
        self._rights = rights

    async def ask(self, token: str, user_id: str | None) -> Erased:
        """Erase whoever has this token, as far as it goes in 20 s; Unauthenticated where nobody has or had it."""
        return await self._go(await self._begun(erasure_id(token), user_id))

    async def remove_child(self, user_id: str, *, operator: str) -> Request:
        """Erase a user whom an operator knows to be a child, as far as it goes in 20 s; raise UserNotFound."""
        request = await self._erasures.begin(
            uuid4(), user_id, answer_within_days=self._rights.answer_within_days, operator=operator
        )
        if request is None:
            raise UserNotFound
        return (await self._go(request)).request

    async def _go(self, request: Request) -> Erased:
        if request.completed_at is not None:
            return Erased(request=request, receipts=[], receipts_left_out=0)
        log.info("erasure_asked")
        receipts: list[str] = []
        await self._erase_within(WITHIN_S, request, receipts)
        left_out = max(0, len(receipts) - MOST_RECEIPTS)
        request = await self._requests.find(request.id) or request
        return Erased(request=request, receipts=receipts[:MOST_RECEIPTS], receipts_left_out=left_out)

    async def run(self) -> None:
        """Go on with what was begun, in every broker and every worker, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the passes
            try:
                await self.go_on()
            except BrokerError as exc:
                log.warning("erasures_postponed", code=exc.code)
            except Exception:
                # An erasure that breaks must not end the process; it is tried again.
                log.exception("erasure_broke")

    async def go_on(self) -> None:
        """Go on with erasures whose process died, or that wait for a store or a provider."""
        await _side_by_side(self._erase_within(LEASE_S, request, []) for request in await self._erasures.due())

    async def _begun(self, request_id: UUID, user_id: str | None) -> Request:
        request = None
        if user_id is not None:
            request = await self._erasures.begin(
                request_id, user_id, answer_within_days=self._rights.answer_within_days
            )
        request = request or await self._requests.find(request_id)
        if request is None:
            raise Unauthenticated("nobody has this token")
        return request

    async def _erase_within(self, within_s: float, request: Request, receipts: list[str]) -> None:
        try:
            async with asyncio.timeout(within_s):
                await self._erase(request, receipts)
        except (BrokerError, TimeoutError) as exc:
            log.warning("erasure_postponed", code=getattr(exc, "code", "timeout"))
        await self._erasures.note_progress(request)

    async def _erase(self, request: Request, receipts: list[str]) -> None:
        for _ in range(ROUNDS):
            if request.user_id is None or await self._erase_user(request, request.user_id, receipts):
                break
            await asyncio.sleep(PAUSE_S)
        # Jobs without a user, of this request, whose provider has answered meanwhile.
        while (notes := await self._erasures.release(request)) is not None:
            receipts.extend(notes)

    async def _erase_user(self, request: Request, user_id: str, receipts: list[str]) -> bool:
        await self._end_jobs(user_id)
        await self._destroy_outputs(user_id)
        await self._erasures.forget_devices(user_id)
        # Where a hold keeps the records, nothing more is found to do until it ends.
        for step in (self._erasures.release, self._erasures.detach):
            while (notes := await step(request)) is not None:
                receipts.extend(notes)
        if await self._holds.in_force(user_id):
            return False
        # Before the row goes: whoever restores a backup that is older erases the user again.
        await self._blobs.mark(erased_mark(user_id))
        is_gone = await self._erasures.delete_user(request)  # where it is not, the mark stays: another may delete now
        if is_gone:
            log.info("user_erased")
        return is_gone

    async def _end_jobs(self, user_id: str) -> None:
        seen: set[UUID] = set()
        while fresh := [job for job in await self._erasures.live(user_id) if job.id not in seen]:
            seen |= {job.id for job in fresh}
            await _side_by_side(self._end(job) for job in fresh)

    async def _end(self, job: Job) -> None:
        try:
            await self._cancellation.delete(job)
        except JobNotFound:
            log.info("upload_discarded", job_id=str(job.id))

    async def _destroy_outputs(self, user_id: str) -> None:
        stuck: set[UUID] = set()
        while copies := await self._erasures.open_outputs(user_id, but=list(stuck)):
            stuck |= await self._destroy_batch(copies)

    async def _destroy_batch(self, copies: Sequence[Copy]) -> set[UUID]:
        """Destroy outputs of many jobs at once; where that fails job by job, and return the jobs that failed."""
        job_ids = {copy.job_id for copy in copies}
        try:
            await self._settler.drop_outputs(copies)
        except (BrokerError, TimeoutError):
            await _side_by_side(self._settler.destroy_outputs(job_id) for job_id in job_ids)
            return job_ids  # those that went are not found again anyway
        await self._erasures.outputs_destroyed(list(job_ids))
        return set()


async def _side_by_side(works: Iterable[Awaitable[object]]) -> None:
    """Do all of it, some at a time; what fails is left for the next round, and holds up no other."""
    room = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(_quietly(work, room) for work in works))


async def _quietly(work: Awaitable[object], room: asyncio.Semaphore) -> None:
    async with room:
        try:
            await work
        except (BrokerError, TimeoutError) as exc:
            log.warning("erasure_postponed", code=getattr(exc, "code", "timeout"))

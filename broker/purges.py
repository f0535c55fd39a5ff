"""What providers have of a job: asked to delete it, in settle and then for a day, and stated as they answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import msgspec
import structlog

from broker.attempts import Attempt, AttemptState, Disposition, dispose
from broker.custody import Copy, Domain, Evidence
from broker.errors import StoreUnavailable
from broker.jobs import Job, Outcome
from broker.metrics import Metrics
from broker.receipts import Signer, exposure_of, provider_copies, settled_at, statement
from broker.store.stores import Stores
from providers.base import Part, Purge
from providers.failures import FailureKind, ProviderFailure

log = structlog.get_logger()

AT_SETTLE_S = 5.0
CLAIM_S = 30.0
"""How long whoever took an attempt has, before somebody else asks its provider again."""
AGAIN_S = 60.0
REVISE_TRIES = 5

AskProvider = Callable[[Attempt], Awaitable[Purge | None]]
"""Stops an attempt where it still runs, deletes what can be deleted, looks; None: the provider cannot be asked now."""


async def ask_nobody(attempt: Attempt) -> Purge | None:
    """The answer of a process that holds no provider's secret: a relay worker goes on with it."""
    del attempt
    return None


class Purges:
    """
    States what is known of every copy at a provider; asks through `ask`, which only relay workers have.

    `may_ask` says whether this process may speak to providers now: without its lease it may not.
    """

    def __init__(
        self,
        stores: Stores,
        *,
        signer: Signer,
        metrics: Metrics,
        ask: AskProvider = ask_nobody,
        may_ask: Callable[[], bool] = lambda: True,
    ) -> None:
        self._jobs = stores.jobs
        self._attempts = stores.attempts
        self._custody = stores.custody
        self._receipts = stores.receipts
        self._signer = signer
        self._metrics = metrics
        self._ask = ask
        self._may_ask = may_ask

    async def at_settle(self, job_id: UUID, copies: Sequence[Copy]) -> None:
        """Ask once, within five seconds, and state what is known; the rest is asked for after the final state."""
        if not any(copy.domain is Domain.PROVIDER for copy in copies):
            return
        attempts = await self._outside(job_id)
        answers = await asyncio.gather(*(self._asked(attempt, within_s=AT_SETTLE_S) for attempt in attempts))
        for attempt, purge in zip(attempts, answers, strict=True):
            await self._state(attempt, purge, copies)
            if attempt.is_open:
                canceled = await self._attempts.failed(attempt.id, ProviderFailure(FailureKind.CANCELED))
                self._metrics.attempt_ended(canceled)

    async def _outside(self, job_id: UUID) -> list[Attempt]:
        attempts = [attempt for attempt in await self._attempts.of_job(job_id) if attempt.is_outside]
        if not any(attempt.is_open for attempt in attempts):
            return attempts
        job = await self._jobs.get(job_id)
        if job is None or job.outcome is not Outcome.SUCCEEDED:
            return attempts
        # Whoever decided died before it could say so of the attempt that delivered: the last one.
        self._metrics.attempt_ended(await self._attempts.succeeded(attempts[-1].id, cost_usd=None))
        delivered = msgspec.structs.replace(attempts[-1], state=AttemptState.SUCCEEDED, ended_at=job.decided_at)
        return [*attempts[:-1], delivered]

    async def go_on(self, attempt: Attempt) -> bool:
        """Ask once more for a final job; True when nothing is left to ask, and the next receipt says so."""
        purge = await self._asked(attempt, within_s=CLAIM_S / 2)
        if purge is None and not attempt.is_late:
            await self._attempts.dispose(attempt.job_id, {}, {attempt.id: AGAIN_S})
            return False
        await self._state(attempt, purge, await self._custody.copies(attempt.job_id))
        await self._revise(attempt.job_id)
        return True

    async def _asked(self, attempt: Attempt, *, within_s: float) -> Purge | None:
        if not attempt.needs_asking or not self._may_ask():
            return None
        try:
            async with asyncio.timeout(within_s):
                return await self._ask(attempt)
        except TimeoutError:
            return None

    async def _state(self, attempt: Attempt, purge: Purge | None, copies: Sequence[Copy]) -> None:
        theirs = [copy for copy in copies if copy.domain is Domain.PROVIDER and copy.ref == str(attempt.id)]
        stated = {copy.id: dispose(attempt, Part(copy.what), purge) for copy in theirs}
        is_pending = any(d.evidence is Evidence.PURGE_PENDING for d in stated.values())
        await self._attempts.dispose(attempt.job_id, stated, {attempt.id: 0.0 if is_pending else None})
        self._count(attempt, stated, purge)

    def _count(self, attempt: Attempt, stated: dict[int, Disposition], purge: Purge | None) -> None:
        for disposition in stated.values():
            self._metrics.purges.labels(provider=attempt.provider, result=disposition.evidence).inc()
        if any(d.evidence is Evidence.UNKNOWN for d in stated.values()):
            self._metrics.provider_unknown.labels(provider=attempt.provider).inc()
            still = purge is not None and bool(purge.still_served)
            log.error("provider_copy_unknown", job_id=str(attempt.job_id), code="still_served" if still else "no_trace")

    async def _revise(self, job_id: UUID) -> None:
        for _ in range(REVISE_TRIES):
            job = await self._jobs.get(job_id)
            if job is None:
                return
            if await self._receipts.revise(job_id, *await self._next_receipt(job)):
                log.info("receipt_revised", job_id=str(job_id))
                return
        raise StoreUnavailable("receipts are revised faster than they can be signed")

    async def _next_receipt(self, job: Job) -> tuple[int, str, str]:
        revision = await self._receipts.revision(job.id) + 1
        copies = await self._custody.copies(job.id)
        # Outputs of ours that were destroyed since are no part of what was settled.
        settled = settled_at([copy for copy in copies if _is_before(copy, job)])
        receipt = statement(job, copies, exposure=exposure_of(copies), settled_at=settled, revision=revision)
        return revision, self._signer.sign(receipt), provider_copies(copies)


def _is_before(copy: Copy, job: Job) -> bool:
    return copy.closed_at is not None and job.finalized_at is not None and copy.closed_at <= job.finalized_at

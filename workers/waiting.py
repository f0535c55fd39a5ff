"""Waits for orders at providers: polls with jitter and back-off, wakes on a hint, believes only what it asks."""

import asyncio
import random
from uuid import UUID

import structlog

from broker.changes import heard
from broker.errors import Unavailable
from broker.hints import Hints
from broker.jobs import Job
from broker.services import Services
from providers.base import Handle, Progress, Provider, Snapshot
from providers.failures import FailureKind, ProviderFailure
from workers.progress import Progress as JobProgress

log = structlog.get_logger()

SLOWEST_S = 10.0
SLOWER = 1.5
PATIENT = frozenset({FailureKind.NETWORK, FailureKind.RATE_LIMITED})
"""A question that failed this way says nothing of the order: it is asked again until the job's time is up."""
TURNED_AWAY = frozenset({FailureKind.AUTH, FailureKind.PAYMENT})
"""We are not answered any more: the order may be done and paid for all the same."""
BELIEVED_AFTER = 4
"""So often a provider may answer a question with an error before nobody knows what became of the order."""
STORE_AGAIN_S = 0.5
PROGRESS_EVERY_S = 2.0


class OrderListener:
    """Keeps the handle of one order as soon as there is one, however long that takes."""

    def __init__(self, services: Services, job: Job, attempt_id: UUID) -> None:
        self._attempts = services.stores.attempts
        self._attempt_id = attempt_id
        self._progress = JobProgress(services.stores.jobs, services.changes, job, every_s=PROGRESS_EVERY_S)
        self.handle: Handle | None = None
        self.is_told = False
        """Whether the provider's adapter says that something is there."""

    @property
    def has_id(self) -> bool:
        """Whether the order can be asked for."""
        return self.handle is not None and bool(self.handle.id)

    async def accepted(self, handle: Handle) -> None:
        """Store what is there from now on."""
        self.is_told = True
        await self.foresee(handle)

    async def foresee(self, handle: Handle) -> None:
        """
        Store what will be there, if anything arrives.

        A Postgres that is away is waited for, as an order without a handle can never be cleared up.
        """
        self.handle = handle
        while True:
            try:
                await self._attempts.accepted(self._attempt_id, handle)
            except Unavailable:
                log.warning("handle_not_stored", attempt=str(self._attempt_id))
                await asyncio.sleep(STORE_AGAIN_S)
            else:
                return

    async def progressed(self, share: float) -> None:
        """Show it to the job's user."""
        await self._progress.report(share)


class Waiting:
    """Waits for orders."""

    def __init__(self, hints: Hints) -> None:
        self._hints = hints

    async def until_done(
        self, provider: Provider, attempt_id: UUID, listener: OrderListener, snapshot: Snapshot
    ) -> Snapshot:
        """Return the snapshot of an order that succeeded; raise ProviderFailure for any other end."""
        pause_s = snapshot.poll_after_s
        with self._hints.watch(attempt_id) as hinted:
            while snapshot.progress is not Progress.SUCCEEDED:
                assert listener.handle is not None
                is_hinted = await heard(hinted, within_s=pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
                snapshot = await self.ask(provider, listener.handle)
                if snapshot.share is not None:
                    await listener.progressed(snapshot.share)
                pause_s = snapshot.poll_after_s if is_hinted else min(pause_s * SLOWER, SLOWEST_S)
        return snapshot

    async def ask(self, provider: Provider, handle: Handle) -> Snapshot:
        """Ask where an order stands, until there is an answer; the job's own deadline ends it otherwise."""
        doubts = 0
        pause_s = 1.0
        while True:
            try:
                return await provider.poll(handle)
            except ProviderFailure as exc:
                if exc.kind in TURNED_AWAY:
                    raise ProviderFailure(FailureKind.UNCERTAIN, f"question_{exc.kind}") from None
                if not is_of_question(exc):
                    raise
                doubts += exc.kind not in {*PATIENT, FailureKind.OVERLOADED}
                if doubts > BELIEVED_AFTER:
                    raise ProviderFailure(FailureKind.UNCERTAIN, exc.detail) from None
                pause_s = min(max(exc.after_s or 0.0, pause_s * SLOWER), SLOWEST_S)
            await asyncio.sleep(pause_s)


def is_of_question(failure: ProviderFailure) -> bool:
    """Whether it is the question that failed, which says nothing of the order that it was about."""
    return failure.is_unanswered or failure.kind in PATIENT or failure.kind in TURNED_AWAY

"""Asks providers to delete what attempts left there: the answers that settle needs, and the rest for a day."""

import asyncio
from collections.abc import Iterable

import structlog

from broker.attempts import Attempt
from broker.errors import BrokerError
from broker.forgetting import forget_frames
from broker.purges import CLAIM_S, Purges
from broker.services import Services
from providers.base import Handle, Progress, Provider, Purge
from providers.failures import FailureKind, ProviderFailure
from workers.adapters import Adapters
from workers.waiting import is_of_question

log = structlog.get_logger()

EVERY_S = 1.0


class Purging:
    """Speaks to providers on behalf of settle, and only while this worker's lease holds."""

    def __init__(self, adapters: Adapters) -> None:
        self._adapters = adapters

    async def ask(self, attempt: Attempt) -> Purge | None:
        """Stop an attempt where it may still run, delete, look; None when the provider could not be asked."""
        outlet = self._adapters.outlet(attempt.provider)
        if outlet is None or attempt.handle is None:
            return None
        try:
            may_run = attempt.may_run and bool(attempt.handle.id)
            has_ended = not may_run or await _has_ended(outlet.adapter, attempt.handle)
            purge = await outlet.adapter.purge(attempt.handle)
            # An order that goes on may still make what was not there to be deleted.
            return purge if has_ended else None
        except ProviderFailure as exc:
            forget_frames(exc)
            log.warning("purge_failed", attempt=str(attempt.id), code=exc.kind)
        except Exception:
            # An adapter that breaks must not end the purges of the others, nor hold up a job's final state.
            log.exception("purge_broke", attempt=str(attempt.id), provider=attempt.provider)
        return None

    async def run(self, services: Services) -> None:
        """Go on with purges of final jobs until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            if not services.lease.is_valid:
                continue
            try:
                due = await services.stores.attempts.due(self._adapters.known, within_s=CLAIM_S)
                await _all(services.purges, due)
            except BrokerError as exc:
                log.warning("purges_postponed", code=exc.code)


async def _has_ended(adapter: Provider, handle: Handle) -> bool:
    """Have an order stopped; where the provider does not say that it is, ask how it stands."""
    if await adapter.cancel(handle):
        return True
    try:
        return (await adapter.poll(handle)).progress is Progress.SUCCEEDED
    except ProviderFailure as exc:
        if exc.kind is FailureKind.LOST:
            return not adapter.terms.has_client_ids  # such a one may know it, and have no call to say so
        return not is_of_question(exc)


async def _all(purges: Purges, due: Iterable[Attempt]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for attempt in due:
            tasks.create_task(_one(purges, attempt))


async def _one(purges: Purges, attempt: Attempt) -> None:
    try:
        await purges.go_on(attempt)
    except BrokerError as exc:
        log.warning("purge_postponed", attempt=str(attempt.id), code=exc.code)
    except Exception:
        # One attempt that cannot be stated must not end this worker's purges.
        log.exception("purge_broke", attempt=str(attempt.id), provider=attempt.provider)

"""The use cases of the audit record: sealing it batch by batch in the background, and checking the whole chain."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import structlog

from broker.audit import Batch, Broken, Event, check_batch, check_events, next_statement
from broker.errors import BrokerError
from broker.receipts import Signer
from broker.store.audit import MOST_IN_A_BATCH, AuditStore

log = structlog.get_logger()

EVERY_S = 10.0
"""How long an event may stand in the record before it is sealed: until then only Postgres keeps it as it is."""


class Sealing:
    """Runs in every broker and every worker; of those that seal at once one does."""

    def __init__(self, audit: AuditStore, *, signer: Signer, keep_for_s: float) -> None:
        self._audit = audit
        self._signer = signer
        self._keep_for_s = keep_for_s

    async def run(self) -> None:
        """Seal again and again until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the passes
            try:
                await self.once()
            except (BrokerError, TimeoutError) as exc:
                log.warning("sealing_postponed", code=getattr(exc, "code", "timeout"))
            except Exception:
                # A record that cannot be sealed now is sealed later, and must not end the process.
                log.exception("sealing_broke")

    async def once(self) -> None:
        """Seal everything that is written."""
        while await self._audit.seal(self._make) == MOST_IN_A_BATCH:
            continue

    def _make(self, head: Batch | None, events: Sequence[Event], last_id: int) -> Batch:
        stated = next_statement(head, events, last_id=last_id, now=datetime.now(UTC), keep_for_s=self._keep_for_s)
        return Batch(
            number=stated.number,
            first_id=stated.first_id,
            last_id=stated.last_id,
            keep_until=datetime.fromisoformat(stated.keep_until),
            note=self._signer.sign(stated),
        )


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """A record in which nothing is amiss: how much of it there is, and its newest batch."""

    batches: int
    events: int
    deleted: int
    """Batches whose events went at their time."""
    head: Batch | None
    unsealed: int
    unsealed_s: float


async def check_record(audit: AuditStore, vkeys: list[str], *, known: tuple[int, str] | None = None) -> Whole:
    """
    Check signatures, chain and events from the first batch to the newest; raise Broken at the first that is amiss.

    `known` is the number and hash of a batch as somebody kept them elsewhere: with it, a record that was cut off
    behind that batch, or made anew with the signing key, is found as well.
    """
    previous, events, deleted, now = None, 0, 0, datetime.now(UTC)
    async for batch in audit.batches():
        stated = check_batch(batch, previous, vkeys)
        is_there = check_events(stated, await audit.events(batch.first_id, batch.last_id), now=now)
        events += stated.events if is_there else 0
        deleted += not is_there
        if known is not None and known[0] == batch.number and known[1] != batch.hash:
            raise Broken(f"batch {batch.number} is whole, and another than the one that you know")
        previous = batch
    if known is not None and known[0] > (previous.number if previous else 0):
        raise Broken(f"batch {known[0]}, which you know, is missing: the record was cut off")
    unsealed, unsealed_s = await audit.unsealed()
    return Whole(
        batches=previous.number if previous else 0,
        events=events,
        deleted=deleted,
        head=previous,
        unsealed=unsealed,
        unsealed_s=unsealed_s,
    )

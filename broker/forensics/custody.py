"""Asks the stack's own stores, past its API: which keys there are, what is open still, and how long ends took."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from broker.custody import Holder, KeptAt
from broker.demo.evidence import of_upload
from broker.forensics.orders import Ordered
from broker.forensics.stage import Stage
from broker.frames import KEY_BYTES
from broker.jobs import Job
from broker.store.custody import CustodyStore
from broker.store.database import Database
from broker.store.files import statements
from broker.store.jobs import JobStore
from broker.store.keyholders import Keyholders
from broker.store.keys import OpenAnswer

_SQL: Final = statements("forensics")
_AGAIN_S: Final = 0.2


async def keys_of(stage: Stage, jobs: Sequence[Ordered]) -> dict[bytes, str]:
    """Read the keys of uploads that are there now: they are looked for like any marker. Only who looks holds them."""
    keyholders = Keyholders.of(stage.stack.settings)
    found: dict[bytes, str] = {}
    try:
        async with stage.database() as database:
            for ordered in jobs:
                job = await _job(database, ordered)
                if job is None:
                    continue
                for copy in of_upload(await CustodyStore(database).copies(job.id)):
                    buffer = bytearray(KEY_BYTES)
                    if copy.holder is Holder.KEY and copy.is_open:
                        keyholder = keyholders.at(KeptAt.read(copy.detail).keyholder)
                        answer = await keyholder.open_into(bytes.fromhex(copy.ref), buffer, fence=job.fence)
                        if answer is OpenAnswer.OK:
                            found[bytes(buffer)] = f"key of the {copy.what} of {ordered.name}"
    finally:
        await keyholders.aclose()
    return found


async def longest_end_ms(stage: Stage, jobs: Sequence[Ordered]) -> int | None:
    """Say how long it took at most from the decision to the last copy of an upload being gone."""
    async with stage.database() as database:
        took = [await _end_ms(database, ordered) for ordered in jobs]
    return max((ms for ms in took if ms is not None), default=None)


async def wait_for_copies(stage: Stage, *, are_open: bool, within_s: float) -> bool:
    """Wait until some copy of an upload is open, or none is any more, whosever it is."""
    ends_s = time.monotonic() + within_s
    async with stage.database() as database:
        while bool(await database.rows(_SQL["open_uploads"])) != are_open:
            if time.monotonic() > ends_s:
                return False
            await asyncio.sleep(_AGAIN_S)
    return True


async def _end_ms(database: Database, ordered: Ordered) -> int | None:
    job = await _job(database, ordered)
    if job is None or job.decided_at is None:
        return None
    closed = [copy.closed_at for copy in of_upload(await CustodyStore(database).copies(job.id))]
    last = max((at for at in closed if at is not None), default=job.decided_at)
    return max(0, round((last - job.decided_at).total_seconds() * 1000))


async def _job(database: Database, ordered: Ordered) -> Job | None:
    return await JobStore(database).find(ordered.user.user_id, UUID(ordered.id)) if ordered.id else None

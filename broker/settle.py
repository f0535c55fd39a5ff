"""The only door to a final state: destroy every copy, see that it is gone, sign the receipt, and only then finish."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar
from uuid import UUID

import structlog

from broker.changes import Changes, heard
from broker.custody import Copy, Domain, Evidence, Held, Holder, KeptAt, What
from broker.errors import (
    BlobStillHeld,
    BlobsUnavailable,
    HolderStillAlive,
    IllegalTransition,
    KeyStillHeld,
    StillHeld,
    Unavailable,
)
from broker.jobs import Job
from broker.metrics import Held as StillThere
from broker.metrics import Metrics
from broker.purges import Purges
from broker.receipts import Signer, exposure_of, provider_copies, settled_at, statement
from broker.store.jobs import SETTLING_LEASE_S
from broker.store.stores import Stores
from policies.base import Ending, Facts
from policies.registry import Policies

log = structlog.get_logger()

# Whoever could still PUT the key is gone once settling is over, and each attempt at it counts anew. Longer only fills
# the keyholder: when it has no room for tombstones, it takes no keys.
TOMBSTONE_S = 900
POSTPONE_S = 1.0
LOOK_AGAIN_S = 0.05
WITHIN_S = SETTLING_LEASE_S - 2.0

T = TypeVar("T")


class Settler:
    """Destroys copies and finishes jobs; every step may be repeated by anybody who holds the job's fence."""

    def __init__(
        self,
        stores: Stores,
        *,
        signer: Signer,
        changes: Changes,
        policies: Policies,
        metrics: Metrics,
        purges: Purges,
    ) -> None:
        self._jobs = stores.jobs
        self._custody = stores.custody
        self._outputs = stores.outputs
        self._keys = stores.keys
        self._blobs = stores.blobs
        self._signer = signer
        self._changes = changes
        self._policies = policies
        self._metrics = metrics
        self._purges = purges

    async def settle(self, job: Job, *, let_go: Held | None = None) -> Job:
        """
        Bring a settling job under our fence to its final state; idempotent up to the last write.

        `let_go` names what the calling process held of this job, when it has wiped it. Raises StillHeld while something
        of the upload is there, Unavailable while a store is silent, IllegalTransition when somebody else took over.
        """
        async with asyncio.timeout(WITHIN_S):
            copies = await self._custody.copies(job.id)
            evidence = await self._destroy(job.id, self._doomed(job, copies), let_go=let_go)
            await self._purges.at_settle(job.id, copies)
            final = await self._finish(job, evidence)
        log.info("job_finished", job_id=str(job.id), state=final.state, code=final.code, operation=final.operation)
        await self._changes.publish(final)
        return final

    async def announce(self, job: Job) -> None:
        """Tell whoever runs or watches the job that its outcome is decided."""
        await self._changes.publish(job)

    async def settle_or_postpone(self, job: Job, *, let_go: Held | None = None) -> Job | None:
        """Settle, or leave the job for a later attempt by anybody; None when it is not final yet."""
        try:
            return await self.settle(job, let_go=let_go)
        except IllegalTransition:
            log.info("settling_taken_over", job_id=str(job.id))
        except (StillHeld, Unavailable, TimeoutError) as exc:
            self._alarm(job, exc)
        try:
            if let_go is not None:
                # Whoever settles next cannot know that we have wiped it, and would wait as long as we live.
                await self._custody.release(job.id, let_go, Evidence.OVERWRITTEN)
            await self._jobs.postpone_settling(job, delay_s=POSTPONE_S)
        except Unavailable:
            log.warning("settling_not_postponed", job_id=str(job.id))
        return None

    async def discard(self, job: Job, *, let_go: Held | None = None) -> bool:
        """
        Destroy an unfinished upload under our fence and delete its row.

        False when it is not ours any more, or when a silent store may have ciphertext of it: the row stays as what
        knows of that, for a later upload under the same id or, once the sweep has deleted the blob, to be discarded.
        """
        async with asyncio.timeout(WITHIN_S):
            copies = _ours(await self._custody.copies(job.id))
            # What a later upload under the same id holds is its own: two that waited for each other would never end.
            await self.drop(job.id, [copy for copy in copies if copy.fence <= job.fence], let_go=let_go)
            return await self._jobs.discard(job)

    async def drop(self, job_id: UUID, copies: Sequence[Copy], *, let_go: Held | None = None) -> None:
        """Destroy these copies and close their rows."""
        try:
            evidence = await self._destroy(job_id, copies, let_go=let_go)
        except StillHeld as exc:
            self._count(exc)
            raise
        await self._custody.close(evidence)

    async def drop_outputs(self, copies: Sequence[Copy]) -> None:
        """Destroy outputs of several jobs at once and close their rows; raise StillHeld or Unavailable as one."""
        async with asyncio.timeout(WITHIN_S):
            await self.drop(copies[0].job_id, [copy for copy in copies if copy.what is What.OUTPUT])

    async def destroy_outputs(self, job_id: UUID, *, n: int | None = None) -> int:
        """Destroy one output of a final job, or all that there is of any; return how many copies were closed."""
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._outputs.doom(job_id, n)  # first, so that nobody who finds a key shredded calls it lost
                copies = [c for c in _ours(await self._custody.copies(job_id)) if c.what is What.OUTPUT]
                refs = {ref for output in await self._custody.outputs(job_id) if output.n == n for ref in output.refs}
                await self.drop(job_id, [copy for copy in copies if n is None or copy.ref in refs])
                await self._outputs.destroyed(job_id, n)
        except TimeoutError as exc:
            raise Unavailable from exc
        log.info("outputs_destroyed", job_id=str(job_id), count=len(copies))
        return len(copies)

    def _doomed(self, job: Job, copies: Sequence[Copy]) -> list[Copy]:
        assert job.outcome is not None
        wanted = self._policies.settle(Ending(outcome=job.outcome))
        doomed = {What.UPLOAD: wanted.uploads, What.PARAMETERS: wanted.parameters, What.OUTPUT: True}
        # What an earlier attempt made and did not deliver goes all the same.
        return [c for c in _ours(copies) if doomed[c.what] and (wanted.outputs or not c.is_served)]

    async def _destroy(self, job_id: UUID, copies: Sequence[Copy], *, let_go: Held | None) -> dict[int, Evidence]:
        keys = [copy for copy in copies if copy.holder is Holder.KEY]
        blobs = [copy for copy in copies if copy.holder is Holder.BLOB]
        processes = [copy for copy in copies if copy.holder is Holder.PROCESS]
        await _all(self._shred(copy) for copy in keys)
        gone = dict.fromkeys((copy.id for copy in keys), Evidence.SHREDDED)
        gone |= await self._wait_for_holders(job_id, processes, let_go=let_go)
        found = await _all(self._delete(copy) for copy in blobs)
        return gone | dict(zip((copy.id for copy in blobs), found, strict=True))

    async def _shred(self, copy: Copy) -> None:
        key_id = bytes.fromhex(copy.ref)
        keyholder = self._keys.at(KeptAt.read(copy.detail).keyholder)
        await keyholder.shred(key_id, ttl_s=TOMBSTONE_S)
        if await keyholder.has(key_id):
            raise KeyStillHeld(f"custody {copy.id}")

    async def _delete(self, copy: Copy) -> Evidence:
        try:
            await self._blobs.destroy(copy.ref)
        except BlobsUnavailable:
            if copy.is_sealed:
                raise  # its key is with devices: as long as the blob may be there, it can be opened
            # Its key was shredded before: what lies there can never be opened; the sweep deletes it later.
            return Evidence.UNREADABLE
        return Evidence.ABSENT

    async def _wait_for_holders(
        self, job_id: UUID, copies: Sequence[Copy], *, let_go: Held | None
    ) -> dict[int, Evidence]:
        gone: dict[int, Evidence] = {
            copy.id: Evidence.OVERWRITTEN for copy in copies if let_go is not None and let_go.is_row(copy)
        }
        waiting: dict[int, str] = {copy.id: copy.ref for copy in copies if copy.id not in gone}
        with self._changes.watch(job_id) as changed:
            while waiting:
                ended = await self._custody.ended_holders(list(waiting.values()))
                gone |= {copy_id: Evidence.LEASE_ENDED for copy_id, ref in waiting.items() if ref in ended}
                still = {copy.id for copy in _ours(await self._custody.copies(job_id))}
                waiting = {i: ref for i, ref in waiting.items() if i in still and i not in gone}
                if waiting:
                    await heard(changed, within_s=LOOK_AGAIN_S)
        return gone

    async def _finish(self, job: Job, evidence: dict[int, Evidence]) -> Job:
        copies = await self._custody.close_and_list(job.id, evidence)
        if _uploads(copies):
            # Another settler closed a row while our write waited, and the list is from before it.
            copies = await self._custody.copies(job.id)
        if _uploads(copies):
            raise HolderStillAlive(f"job {job.id}")
        exposure = exposure_of(copies)
        receipt = statement(job, copies, exposure=exposure, settled_at=settled_at(copies))
        final = await self._jobs.finish(
            job,
            note=self._signer.sign(receipt),
            outputs_for_s=self._outputs_for_s(job),
            provider_copies=provider_copies(copies),
            exposure=exposure,
        )
        if final.decided_at is not None and final.finalized_at is not None:
            took_s = (final.finalized_at - final.decided_at).total_seconds()
            self._metrics.destroyed_seconds.labels(outcome=final.state).observe(took_s)
        return final

    def _outputs_for_s(self, job: Job) -> float | None:
        return self._policies.retain(Facts(operation=job.operation, is_sealed=job.is_sealed)).lifetime_s

    def _count(self, exc: StillHeld) -> None:
        self._metrics.still_held.labels(what=_still_there(exc)).inc()

    def _alarm(self, job: Job, exc: Exception) -> None:
        if isinstance(exc, StillHeld):
            self._count(exc)
        code = exc.code if isinstance(exc, StillHeld | Unavailable) else "timeout"
        log.warning("settling_postponed", job_id=str(job.id), code=code)


def _still_there(exc: StillHeld) -> StillThere:
    if isinstance(exc, KeyStillHeld):
        return StillThere.KEY
    return StillThere.BLOB if isinstance(exc, BlobStillHeld) else StillThere.HOLDER


def _ours(copies: Sequence[Copy]) -> list[Copy]:
    return [copy for copy in copies if copy.is_open and copy.domain is Domain.OURS]


def _uploads(copies: Sequence[Copy]) -> list[Copy]:
    return [copy for copy in _ours(copies) if copy.what is not What.OUTPUT]


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*calls))

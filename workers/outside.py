"""
One attempt at a provider outside: slot, clean picture, row, order, wait, fetch, keep.

The row and its custody rows are committed before anything is sent, and the handle as soon as there is one: whoever
claims the job after a crash goes on waiting under it, and orders nothing twice.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID, uuid4

import structlog

from broker.attempts import Attempt, hook_hash
from broker.errors import Unavailable
from broker.jobs import Job, Outcome, Output
from broker.services import Services
from broker.store.attempts import NewAttempt
from providers.base import File, Handle, Part, Snapshot, Task
from providers.download import EXPIRED, Fetched
from providers.failures import FailureKind, ProviderFailure
from workers.adapters import Adapters, Outlet
from workers.disclosure import clean_file
from workers.images.zygote import Zygote
from workers.opening import open_pictures
from workers.outcomes import Ending, HandOver, Paid, Stopped, failed
from workers.plaintext import Plaintext
from workers.results import Results, destroy_all
from workers.seats import Seats
from workers.waiting import SLOWER, SLOWEST_S, STORE_AGAIN_S, OrderListener, Waiting
from workers.work import Work

log = structlog.get_logger()

FETCH_AGAIN_S = (0.5, 2.0, 4.0, 8.0)
"""An output that was paid for is asked for again before it is given up."""
FULL_AGAIN_S = 2.0
MAX_OUTPUTS = 16
FETCHES_PER_PICTURE = 4
"""How many outputs are under way from each provider for every picture that may be open: fetching is mostly waiting."""
ORDER_AGAIN_S = (0.5, 2.0)
REFUSED = frozenset({FailureKind.INVALID_INPUT, FailureKind.CONTENT_REJECTED})
"""What is said of a task, and so of the same task that was sent before."""


class Outside:
    """Runs jobs at providers outside; a picture is held only until its order is sent."""

    def __init__(
        self,
        services: Services,
        adapters: Adapters,
        zygote: Zygote,
        *,
        results: Results,
        seats: Seats,
        pictures_at_once: int,
    ) -> None:
        self._services = services
        self._stores = services.stores
        self._adapters = adapters
        self._zygote = zygote
        self._results = results
        self._seats = seats
        self._waiting = Waiting(services.hints)
        self._opening = asyncio.Semaphore(pictures_at_once)
        self._orders: dict[UUID, OrderListener] = {}
        # A provider whose files come slowly holds up no other.
        self._fetching = defaultdict[str, asyncio.Semaphore](
            lambda: asyncio.Semaphore(pictures_at_once * FETCHES_PER_PICTURE)
        )

    def is_ordering(self, job_id: UUID) -> bool:
        """Whether an order of this job was begun that no other worker could go on with: it has no handle yet."""
        listener = self._orders.get(job_id)
        return listener is not None and not listener.has_id

    async def run(self, work: Work, name: str, *, resumed: Attempt | None) -> Ending | HandOver:
        """Return a success or where the job goes on; raise ProviderFailure once its row says so, or Stopped."""
        outlet = self._adapters.outlet(name)
        if outlet is None:
            return HandOver(pool=self._services.config.current.providers[name].pool)
        attempt_id = resumed.id if resumed is not None else uuid4()
        # An order that runs over there has its place, whoever waits for one.
        limit = outlet.configured.concurrency if resumed is None else 0
        async with self._seats.taken(name, attempt_id, limit=limit) as is_seated:
            if not is_seated:
                return HandOver(pool=work.job.pool, after_s=FULL_AGAIN_S)
            try:
                return await self._attempted(work, outlet, attempt_id, resumed)
            finally:
                self._orders.pop(work.job.id, None)

    async def _attempted(self, work: Work, outlet: Outlet, attempt_id: UUID, resumed: Attempt | None) -> Ending:
        listener = OrderListener(self._services, work.job, attempt_id)
        try:
            ending = await self._attempt(work, outlet, attempt_id, resumed, listener=listener)
        except ProviderFailure as exc:
            # What an upload or an earlier claim has sent is there, though this order was not.
            exc.is_unsent = exc.is_unsent and resumed is None and not listener.is_told
            await self._failed(outlet, attempt_id, exc)
            raise
        await self._services.breaker.report(outlet.name, None)
        return ending

    async def _attempt(
        self, work: Work, outlet: Outlet, attempt_id: UUID, resumed: Attempt | None, *, listener: OrderListener
    ) -> Ending:
        if resumed is None:
            snapshot = await self._order(work, outlet, attempt_id, listener)
        else:
            snapshot = await self._resume(work, outlet, resumed, listener)
        snapshot = await self._waiting.until_done(outlet.adapter, attempt_id, listener, snapshot)
        outputs = await self._kept(work.job, outlet, snapshot, listener.handle)
        return Ending(
            outcome=Outcome.SUCCEEDED, outputs=outputs, paid=Paid(attempt=attempt_id, cost_usd=snapshot.cost_usd)
        )

    async def _order(self, work: Work, outlet: Outlet, attempt_id: UUID, listener: OrderListener) -> Snapshot:
        with Plaintext() as plaintext:
            try:
                files = await self._clean_files(work, outlet, plaintext)
            except ProviderFailure as exc:
                ended = await self._stores.attempts.failed_here(work.job, attempt_id, provider=outlet.name, failure=exc)
                self._services.metrics.attempt_ended(ended)
                raise
            token = self._hook_token(outlet)
            self._orders[work.job.id] = listener
            await self._stores.attempts.begin(work.job, _row(work, outlet, attempt_id, token=token, files=files))
            return await self._submit(work, outlet, attempt_id, listener, files=files, token=token)

    async def _submit(
        self,
        work: Work,
        outlet: Outlet,
        attempt_id: UUID,
        listener: OrderListener,
        *,
        files: Sequence[File],
        token: str = "",
        is_resumed: bool = False,
    ) -> Snapshot:
        if outlet.adapter.terms.has_client_ids:
            # The provider will know it by our id, whatever becomes of the answer.
            await listener.foresee(Handle(id=str(attempt_id), operation=work.job.operation))
        task = Task(
            attempt=str(attempt_id),
            operation=work.job.operation,
            parameters=work.parameters,
            pictures=tuple(files),
            deadline_s=work.job.finish_within_s,
            hook_url=f"{self._services.settings.public_url.rstrip('/')}/v1/hooks/{token}" if token else "",
        )
        return await self._ordered(outlet, task, listener, may_be_there=is_resumed)

    async def _ordered(self, outlet: Outlet, task: Task, listener: OrderListener, *, may_be_there: bool) -> Snapshot:
        detail = ""
        for pause_s in (*ORDER_AGAIN_S, None) if outlet.adapter.terms.has_client_ids else (None,):
            try:
                return await outlet.adapter.submit(task, listener)
            except ProviderFailure as exc:
                may_be_there = may_be_there or exc.kind is FailureKind.UNCERTAIN
                exc.is_unsent = exc.is_unsent and not may_be_there
                if not may_be_there or exc.kind in REFUSED:
                    raise
                detail = exc.detail
            if pause_s is None:
                break
            await asyncio.sleep(pause_s)  # under the same id it is the same order, whatever became of the first
        # That the last try was turned away says nothing of the first.
        raise ProviderFailure(FailureKind.UNCERTAIN, detail)

    async def _resume(self, work: Work, outlet: Outlet, attempt: Attempt, listener: OrderListener) -> Snapshot:
        handle = attempt.handle
        if handle is None or not handle.id:
            raise ProviderFailure(FailureKind.UNCERTAIN, "no_handle")
        listener.handle = handle
        log.info("attempt_resumed", job_id=str(work.job.id), attempt=str(attempt.id))
        try:
            return await self._waiting.ask(outlet.adapter, handle)
        except ProviderFailure as exc:
            if exc.kind is not FailureKind.LOST or not outlet.adapter.terms.has_client_ids:
                raise
        if work.lost is not None:
            raise Stopped(work.lost)
        # It never arrived, or cannot be asked for: under the same id it is the same order.
        with Plaintext() as plaintext:
            files = await self._clean_files(work, outlet, plaintext)
            return await self._submit(work, outlet, attempt.id, listener, files=files, is_resumed=True)

    async def _clean_files(self, work: Work, outlet: Outlet, plaintext: Plaintext) -> list[File]:
        self._ask_policies(outlet)
        async with self._opening:
            return await self._opened(work, outlet, plaintext)

    async def _opened(self, work: Work, outlet: Outlet, plaintext: Plaintext) -> list[File]:
        terms, model = outlet.adapter.terms, outlet.configured.models[work.job.operation]
        files: list[File] = []
        for upload in await open_pictures(self._stores, work.job, work.uploads, plaintext):
            pixels = await self._zygote.decode(upload)
            plaintext.keep(pixels.fd)
            plaintext.destroy(upload.fd)
            file = await clean_file(
                self._zygote,
                pixels,
                media_types=frozenset(model.media_types) or terms.media_types,
                max_bytes=terms.max_picture_bytes,
                max_pixels=model.max_pixels,
            )
            files.append(file)
            plaintext.keep(file.fd)
            plaintext.destroy(pixels.fd)
        return files

    def _ask_policies(self, outlet: Outlet) -> None:
        # What is made below is a clean file, and nothing else is ever sent.
        refusal = self._services.policies.disclose_clean(outlet.configured.terms)
        if refusal is not None:
            raise Stopped(failed(refusal.code))

    def _hook_token(self, outlet: Outlet) -> str:
        wants = outlet.adapter.terms.takes_hooks and self._services.settings.public_url
        return secrets.token_urlsafe(32) if wants else ""

    async def _kept(self, job: Job, outlet: Outlet, snapshot: Snapshot, handle: Handle | None) -> list[Output]:
        has_handle = handle is not None and bool(handle.id)
        for pause_s in FETCH_AGAIN_S:
            try:
                return await self._fetch(job, outlet, snapshot, has_handle=has_handle)
            except ProviderFailure as exc:
                if not _is_passing(exc, has_handle=has_handle):
                    raise
            await asyncio.sleep(pause_s)
            if handle is not None and has_handle:
                snapshot = await self._waiting.ask(outlet.adapter, handle)  # its URLs may be fresh ones
        try:
            return await self._fetch(job, outlet, snapshot, has_handle=has_handle)
        except ProviderFailure as exc:
            raise ProviderFailure(FailureKind.BAD_OUTPUT, exc.detail) from None

    async def _fetch(self, job: Job, outlet: Outlet, snapshot: Snapshot, *, has_handle: bool) -> list[Output]:
        pause_s = STORE_AGAIN_S
        while True:
            try:
                # Thousands of orders may end at once; what is fetched lies in memory, in the clear, until it is kept.
                async with self._fetching[outlet.name]:
                    return await self._results.keep_fetched(job, await _fetched(outlet, snapshot))
            except Unavailable as exc:
                if has_handle:
                    raise  # whoever claims the job next asks for it
                log.warning("output_not_kept", job_id=str(job.id), code=exc.code)
            # It came with the answer to its order: nobody but us has it, and who claims the job next cannot ask for it.
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * SLOWER, SLOWEST_S)  # every try leaves custody rows, which settle has to close

    async def _failed(self, outlet: Outlet, attempt_id: UUID, failure: ProviderFailure) -> None:
        log.info("provider_failed", attempt=str(attempt_id), provider=outlet.name, code=failure.kind)
        self._services.metrics.attempt_ended(await self._stores.attempts.failed(attempt_id, failure))
        await self._services.breaker.report(outlet.name, failure.kind, after_s=failure.after_s)


def _is_passing(failure: ProviderFailure, *, has_handle: bool) -> bool:
    """Whether an output that did not come may come the next time."""
    if failure.detail == EXPIRED:
        return has_handle
    return failure.kind in {FailureKind.NETWORK, FailureKind.TIMEOUT}


def _row(work: Work, outlet: Outlet, attempt_id: UUID, *, token: str, files: Sequence[File]) -> NewAttempt:
    configured = outlet.configured
    return NewAttempt(
        id=attempt_id,
        provider=outlet.name,
        exposure=configured.exposure,
        retention_s=configured.retention_s,
        deletes=configured.deletes,
        expected_usd=configured.models[work.job.operation].cost_usd,
        parts=(*((Part.UPLOAD,) if files else ()), Part.OUTPUT, Part.RECORD),
        hook_hash=hook_hash(token) if token else None,
    )


async def _fetched(outlet: Outlet, snapshot: Snapshot) -> list[Fetched]:
    if not 0 < len(snapshot.outputs) <= MAX_OUTPUTS:  # before what comes lies in memory
        raise ProviderFailure(FailureKind.BAD_OUTPUT, "output_count")
    fetched: list[Fetched] = []
    try:
        for output in snapshot.outputs:
            fetched.append(await outlet.downloader.fetch(output))  # noqa: PERF401 - what came is closed if one fails
    except BaseException:
        destroy_all(fetched)
        raise
    return fetched

"""The story of one job, top to bottom: read what was typed, walk along its route, decide, settle."""

import asyncio

import structlog

from broker.custody import Held
from broker.errors import IllegalTransition, Unavailable
from broker.forgetting import forget_frames
from broker.jobs import Job, Outcome
from broker.metrics import AttemptResult
from broker.services import Services
from providers.failures import ProviderFailure
from workers.images.errors import InvalidImage
from workers.opening import open_texts
from workers.outcomes import Ending, HandOver, Stopped, failed, provider_failed
from workers.route_walk import Attempts, RouteWalk
from workers.work import Work

log = structlog.get_logger()

DECIDE_AGAIN_S = 0.5
AT_ONCE = 4
"""So often a job is claimed before who hands it on makes it wait."""
SLOWEST_S = 10.0


class JobRun:
    """Runs claimed jobs; a job's plaintext is held only inside `attempt`."""

    def __init__(self, services: Services, attempts: Attempts) -> None:
        self._services = services
        self._stores = services.stores
        self._attempts = attempts

    async def attempt(self, job: Job) -> Ending | HandOver:
        """
        Run a job that this process has claimed as far as an outcome, or to where it goes on elsewhere.

        Nothing of it is held once this ends. Raises IllegalTransition when the job is no longer ours, Unavailable when
        a store is away.
        """
        try:
            async with asyncio.timeout(job.finish_within_s):
                return await self._attempt(job)
        except TimeoutError as exc:
            forget_frames(exc)
            return Ending(outcome=Outcome.EXPIRED, code="not_finished_in_time")
        except (IllegalTransition, Unavailable, asyncio.CancelledError) as exc:
            # Whoever catches it says that nothing is held, while the frames that it came through hold what they had.
            forget_frames(exc)
            raise
        except Exception as exc:  # noqa: BLE001 - whatever breaks, the job has to end and its upload with it
            forget_frames(exc)
            return _ending(job, exc)

    async def conclude(self, job: Job, ending: Ending | HandOver) -> None:
        """Write the end down, once, and settle; IllegalTransition when somebody else has decided meanwhile."""
        if isinstance(ending, HandOver):
            return await self._hand_over(job, ending)
        assert job.owner is not None
        held = Held(process=job.owner, fence=job.fence)
        settling = await self._decide(job, ending)
        result = AttemptResult(ending.outcome.value)
        self._services.metrics.attempts.labels(operation=job.operation, result=result).inc()
        if ending.paid is not None:
            ended = await self._stores.attempts.succeeded(ending.paid.attempt, cost_usd=ending.paid.cost_usd)
            self._services.metrics.attempt_ended(ended)
        await self._services.settler.settle_or_postpone(settling, let_go=held)
        return None

    async def _attempt(self, job: Job) -> Ending | HandOver:
        config = self._services.config.current
        route = config.route(job.operation)
        if route is None:
            return failed("operation_unavailable")
        work = await self._work(job)
        return await RouteWalk(self._services, self._attempts, work, config=config, route=route).end()

    async def _work(self, job: Job) -> Work:
        uploads = await self._stores.custody.uploads(job.id)
        try:
            return Work(job=job, uploads=uploads, texts=await open_texts(self._stores, job, uploads))
        except Stopped as exc:
            # An order that is under way needs nothing of it any more.
            return Work(job=job, uploads=uploads, texts={}, lost=exc.ending)

    async def _hand_over(self, job: Job, over: HandOver) -> None:
        after_s = over.after_s or _slowed_s(job.attempts)
        queued = await self._stores.jobs.retry(job, pool=over.pool, after_s=after_s)
        self._services.metrics.attempts.labels(operation=job.operation, result=AttemptResult.RETRIED).inc()
        if after_s == 0:
            await self._services.bell.ring(queued.id, fence=queued.fence, pool=queued.pool)

    async def _decide(self, job: Job, ending: Ending) -> Job:
        while True:
            try:
                return await self._stores.jobs.begin_settling(
                    job,
                    ending.outcome,
                    owner=self._services.lease.process.id,
                    code=ending.code,
                    outputs=ending.outputs,
                )
            except Unavailable:
                # Nothing is held any more; when the lease ends meanwhile, the job is rescued and this raises.
                log.warning("decision_postponed", job_id=str(job.id))
                await asyncio.sleep(DECIDE_AGAIN_S)


def _slowed_s(claims: int) -> float:
    """Let a job go round ever more slowly: workers that do not agree who has it would pass it on without end."""
    return 0.0 if claims <= AT_ONCE else min(2.0 ** (claims - AT_ONCE) / 4, SLOWEST_S)


def _ending(job: Job, exc: Exception) -> Ending:
    match exc:
        case Stopped():
            return exc.ending
        case InvalidImage():
            return failed("invalid_image")
        case ProviderFailure():
            return provider_failed(exc.kind)
        case _:
            log.error("attempt_broke", job_id=str(job.id), exc_info=exc)
            return failed("internal")

"""One job's way along its route: provider after provider, as the kinds of their failures allow, until one delivers."""

import asyncio
from uuid import UUID

import structlog

from broker.attempts import Attempt
from broker.errors import OperationUnavailable, Refused
from broker.forgetting import forget_frames
from broker.routes import Config, Route
from broker.routing import LONG_WAIT_S, Again, GiveUp, Tried, after_failure
from broker.services import Services
from providers.failures import FailureKind, ProviderFailure
from workers.adapters import Adapters
from workers.inside import Inside
from workers.outcomes import Ending, HandOver, failed, provider_failed
from workers.outside import Outside
from workers.work import Work

log = structlog.get_logger()


class Attempts:
    """The two kinds of places where a job can be run, as one."""

    def __init__(self, adapters: Adapters, *, inside: Inside, outside: Outside) -> None:
        self._adapters = adapters
        self._inside = inside
        self._outside = outside

    def is_here(self, provider: str) -> bool:
        """Whether this worker runs a provider."""
        return self._adapters.get(provider) is not None

    def is_ordering(self, job_id: UUID) -> bool:
        """Whether a job waits for the answer to an order that nobody else could wait for."""
        return self._outside.is_ordering(job_id)

    async def run(self, work: Work, provider: str, *, resumed: Attempt | None) -> Ending | HandOver:
        """Run a job at a provider once, or go on with an attempt that is under way there."""
        if self._adapters.model(provider) is not None:
            return await self._inside.run(work, provider)
        return await self._outside.run(work, provider, resumed=resumed)


class RouteWalk:
    """Walks one job along its route; the configuration is the one that held when it was claimed."""

    def __init__(self, services: Services, attempts: Attempts, work: Work, *, config: Config, route: Route) -> None:
        self._services = services
        self._attempts = attempts
        self._work = work
        self._config = config
        self._route = route
        self._tried: list[Tried] = []

    async def end(self) -> Ending | HandOver:
        """Return how the job ends, or where it goes on."""
        resumed = await self._remember()
        while True:
            step = await self._next() if resumed is None else self._again(resumed)
            if not isinstance(step, Again):
                return step
            try:
                return await self._attempts.run(self._work, step.provider, resumed=resumed)
            except ProviderFailure as exc:
                forget_frames(exc)
                self._tried.append(self._outcome(step.provider, exc))
                log.info("attempt_failed", job_id=str(self._work.job.id), code=exc.kind, count=len(self._tried))
            resumed = None

    async def _remember(self) -> Attempt | None:
        """Take in what was tried before this claim; return the attempt that may still be under way."""
        if self._work.job.attempts <= 1:
            return None  # the first claim has no past to look at
        past = await self._services.stores.attempts.of_job(self._work.job.id)
        self._tried = [
            Tried(
                provider=attempt.provider,
                kind=attempt.kind,
                after_s=attempt.after_s,
                ago_s=attempt.ago_s,
                cost_usd=attempt.cost_usd,
            )
            for attempt in past
            if not attempt.is_open and attempt.kind is not None
        ]
        return next((attempt for attempt in past if attempt.is_open), None)

    def _again(self, resumed: Attempt) -> Again | Ending | HandOver:
        if self._attempts.is_here(resumed.provider):
            return Again(provider=resumed.provider)
        known = self._config.providers.get(resumed.provider)
        # Nobody can ask any more; settle states what that leaves unknown.
        return provider_failed(FailureKind.UNCERTAIN) if known is None else HandOver(pool=known.pool)

    async def _next(self) -> Again | Ending | HandOver:
        step = await self._chosen()
        if not isinstance(step, Again):
            return step
        if self._work.lost is not None:
            return self._work.lost
        if not self._attempts.is_here(step.provider) or step.after_s > LONG_WAIT_S:
            return HandOver(pool=self._config.providers[step.provider].pool, after_s=step.after_s)
        await asyncio.sleep(step.after_s)
        return step

    async def _chosen(self) -> Again | Ending | HandOver:
        if self._work.lost is not None and not self._tried:
            return self._work.lost
        try:
            ranked = await self._services.fleet.candidates(self._work.needs, job_id=self._work.job.id)
        except (OperationUnavailable, Refused) as exc:
            return provider_failed(self._tried[-1].kind) if self._tried else failed(exc.code)
        ranked = [name for name in ranked if name in self._config.providers]
        if not ranked and not self._tried:
            return HandOver(pool=self._work.job.pool)  # to whoever knows the configuration that has just come
        step = self._after(ranked) if self._tried else Again(provider=await self._first(ranked))
        return provider_failed(step.kind) if isinstance(step, GiveUp) else step

    def _after(self, ranked: list[str]) -> Again | GiveUp:
        estimates = {name: self._expected_usd(name) for name in ranked}
        return after_failure(self._route, ranked, self._tried, estimates=estimates)

    async def _first(self, ranked: list[str]) -> str:
        """Choose the first that takes work; one that is to be found out about lets one job at a time through."""
        for name in ranked:
            if name not in self._config.outside or await self._services.breaker.may_try(name):
                return name
        return ranked[0]  # unhealthy last, and never nobody

    def _outcome(self, provider: str, failure: ProviderFailure) -> Tried:
        told = 0.0 if failure.is_unsent else failure.cost_usd
        cost_usd = self._expected_usd(provider) if told is None else told
        return Tried(provider=provider, kind=failure.kind, after_s=failure.after_s, cost_usd=cost_usd)

    def _expected_usd(self, provider: str) -> float:
        # A provider that was taken out while its order ran is not configured any more.
        known = self._config.providers.get(provider)
        model = known.models.get(self._route.operation) if known is not None else None
        return 0.0 if model is None else model.cost_usd

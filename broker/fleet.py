"""What can run right now: which providers live workers serve, how they stand, and where a job goes first."""

import time
from uuid import UUID

from broker.breaker import Breaker
from broker.circuits import CircuitState
from broker.errors import OperationUnavailable, Refused
from broker.reload import LiveConfig
from broker.routes import InhouseProvider, OutsideProvider
from broker.routing import Needs, Standing, Verdict, explain
from broker.store.jobs import JobStore
from broker.store.processes import Process, ProcessStore
from policies.base import ProviderTerms
from policies.registry import Policies
from providers.base import Estimate, Exposure
from providers.estimates import estimate
from providers.failures import ProviderFailure

FRESH_S = 1.0
JUST_NOW_S = 0.1
"""How old a view may be by which somebody is turned away."""


class Fleet:
    """A view of workers, queues and breakers, at most a second old."""

    def __init__(
        self, processes: ProcessStore, jobs: JobStore, *, config: LiveConfig, policies: Policies, breaker: Breaker
    ) -> None:
        self._processes = processes
        self._jobs = jobs
        self._config = config
        self._policies = policies
        self._breaker = breaker
        self._alive: list[Process] = []
        self._standings: dict[str, Standing] = {}
        self._seen_s = float("-inf")

    async def alive(self) -> list[Process]:
        """Return every process of ours that lives."""
        await self._look()
        return self._alive

    async def operations(self) -> frozenset[str]:
        """Name the operations that can run right now."""
        await self._look()
        return frozenset(
            name
            for name in self._config.current.operations
            if any(not verdict.reason for verdict in self._explain(Needs.any_of(name)))
        )

    async def candidates(self, needs: Needs, *, job_id: UUID) -> list[str]:
        """
        Name the providers that a job may go to, the first one first.

        Raises Refused where only policies stand in the way, OperationUnavailable where nobody can do it right now.
        """
        verdicts: list[Verdict] = []
        for within_s in (FRESH_S, JUST_NOW_S):
            await self._look(within_s)
            verdicts = self._explain(needs, seed=job_id.int)
            if names := [verdict.provider for verdict in verdicts if not verdict.reason]:
                return names
        if verdicts and all(verdict.is_refused for verdict in verdicts):
            raise Refused(verdicts[0].reason)
        reasons = "; ".join(sorted({verdict.reason for verdict in verdicts})) or "it has no route"
        raise OperationUnavailable(f"nobody can run {needs.operation} as it is asked right now: {reasons}")

    async def pool_for(self, needs: Needs, *, job_id: UUID) -> str:
        """Return the pool of workers that a job should wait for; raise as candidates() does."""
        return self._config.current.providers[(await self.candidates(needs, job_id=job_id))[0]].pool

    def terms(self, operation: str) -> list[ProviderTerms]:
        """Return the terms of every provider that may see a picture of an operation under this profile."""
        routed = (provider.terms for provider in self._config.current.routed(operation))
        return [terms for terms in routed if self._policies.disclose_clean(terms) is None]

    def exposure_of(self, operation: str) -> Exposure:
        """Return who may see or keep the pictures of an operation: the widest that its route and the profile allow."""
        exposures = (terms.exposure for terms in self.terms(operation))
        return max(exposures, key=lambda exposure: exposure.rank, default=Exposure.LOCAL)

    def deadline_s(self, operation: str) -> float:
        """Return within what time a job of this operation has to end, by its route."""
        route = self._config.current.route(operation)
        return float("inf") if route is None or route.deadline_s is None else route.deadline_s

    def estimate(self, operation: str, parameters: dict[str, str | int], width: int, height: int) -> Estimate | None:
        """Expect the cost of a job from the fastest live worker's own rates; None where no rate is published."""
        routed = self._config.current.routed(operation)
        if not parameters or any(isinstance(provider, OutsideProvider) for provider in routed):
            return None  # nothing to scale or filter by, or somebody else's model may do it
        found: list[Estimate] = []
        for worker in self._workers:
            if worker.facts.speeds:
                try:
                    found.append(estimate(worker.facts.speeds, parameters, width=width, height=height))
                except ProviderFailure:
                    continue
        return min(found, key=lambda expected: expected.model_s, default=None)

    @property
    def _workers(self) -> list[Process]:
        return [process for process in self._alive if process.role != "broker"]

    def _explain(self, needs: Needs, *, seed: int = 0) -> list[Verdict]:
        # The worker asks again with the picture in its hands; that it is clean by then is the worker's business.
        disclose = self._policies.disclose_clean
        return explain(self._config.current, needs, disclose=disclose, standings=self._standings, seed=seed)

    async def _look(self, within_s: float = FRESH_S) -> None:
        now_s = time.monotonic()
        if now_s - self._seen_s <= within_s:
            return
        config = self._config.current
        self._alive = await self._processes.alive()
        breakers = await self._breaker.standings(list(config.outside))
        ages = await self._jobs.queue_ages() if any(r.overflow_after_s for r in config.routes.values()) else {}
        live = {name for worker in self._workers for name in worker.facts.providers}
        self._standings = {
            name: Standing(
                is_live=name in live,
                is_open=name in breakers and breakers[name].state is CircuitState.OPEN,
                queued_for_s=ages.get(provider.pool, 0.0) if isinstance(provider, InhouseProvider) else 0.0,
            )
            for name, provider in config.providers.items()
        }
        self._seen_s = now_s

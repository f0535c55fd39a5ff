"""What the live workers can do right now: which operations can run, in which pool, and how fast."""

import time

from broker.config import Config
from broker.errors import OperationUnavailable
from broker.store.processes import Process, ProcessStore
from providers.base import Estimate, ProviderFailure
from providers.estimates import estimate

FRESH_S = 1.0


class Fleet:
    """A view of the processes table, at most a second old."""

    def __init__(self, processes: ProcessStore, config: Config) -> None:
        self._processes = processes
        self._config = config
        self._workers: list[Process] = []
        self._seen_s = float("-inf")

    def pool_of(self, operation: str) -> str | None:
        """Return the pool that an operation is routed to."""
        return self._config.pool_of(operation)

    async def operations(self) -> frozenset[str]:
        """Return the operations that a live worker can run."""
        await self._look()
        return frozenset(
            name for worker in self._workers for name in worker.facts.operations if self._routed(worker, name)
        )

    async def require(self, operation: str) -> None:
        """Raise OperationUnavailable when nobody alive can run it."""
        if operation not in await self.operations():
            raise OperationUnavailable(f"no live worker can run {operation} right now")

    def estimate(self, operation: str, parameters: dict[str, str | int], width: int, height: int) -> Estimate | None:
        """Expect the cost of a job from the fastest live worker's own rates; None where no rate is published."""
        if not parameters:
            return None  # nothing to scale or filter by: `noop`
        found: list[Estimate] = []
        for worker in self._workers:
            if operation in worker.facts.operations and worker.facts.speeds:
                try:
                    found.append(estimate(worker.facts.speeds, parameters, width=width, height=height))
                except ProviderFailure:
                    continue
        return min(found, key=lambda expected: expected.model_s, default=None)

    def _routed(self, worker: Process, operation: str) -> bool:
        return self._config.pool_of(operation) == worker.facts.pool

    async def _look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._seen_s > FRESH_S:
            self._workers = [process for process in await self._processes.alive() if process.role != "broker"]
            self._seen_s = now_s

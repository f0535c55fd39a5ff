"""The figures of all processes of a test together, as one who adds them up over all scrapes has them."""

from collections import Counter

import pytest
from prometheus_client.samples import Sample

from broker.metrics import Metrics


class Counted:
    """What all processes of a test show of attempts at a provider; it fails where they show another provider."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
        processes: list[Metrics] = []

        class Kept(Metrics):
            def __init__(self) -> None:
                super().__init__()
                processes.append(self)

        monkeypatch.setattr("broker.services.Metrics", Kept)
        self._processes = processes
        self._provider = provider

    def results(self) -> Counter[str]:
        """How many attempts ended with each result."""
        found: Counter[str] = Counter()
        for sample in self._samples("lethe_provider_attempts_total"):
            found[sample.labels["result"]] += int(sample.value)
        return +found

    def cost_usd(self) -> float:
        """What they cost."""
        return sum(sample.value for sample in self._samples("lethe_provider_cost_usd_total"))

    def timed(self) -> int:
        """How many of them show how long they took."""
        return int(sum(sample.value for sample in self._samples("lethe_provider_seconds_count")))

    def _samples(self, name: str) -> list[Sample]:
        families = (family for metrics in self._processes for family in metrics.registry.collect())
        found = [sample for family in families for sample in family.samples if sample.name == name]
        assert {sample.labels["provider"] for sample in found} <= {self._provider}, "no other is counted"
        return found

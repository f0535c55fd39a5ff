"""What an operator is shown of providers: what all processes know, at each scrape, under the names of lethe.toml."""

from pathlib import Path
from uuid import uuid4

from broker.api.operator import look_at_providers
from broker.circuits import CircuitState
from broker.metrics import ProviderFigures, render
from broker.settings import Settings
from providers.failures import FailureKind
from tests.lifecycle import eventually
from tests.relay import replicate, route, settings_with
from tests.stack import running_services

CONFIG = replicate("http://127.0.0.1:9", name="one", concurrency=3) + replicate("http://127.0.0.1:9", name="other")


async def test_a_scrape_shows_what_all_processes_know(settings: Settings, tmp_path: Path) -> None:
    """A worker's slots and outcomes stand in the broker's figures; in-house models are no part of them."""
    with_providers = settings_with(settings, tmp_path, CONFIG + route("upscale", "[{ one = 1, other = 1 }]"))
    async with running_services(with_providers, role="worker") as worker, running_services(with_providers) as broker:
        await worker.breaker.report("one", FailureKind.PAYMENT)
        for _ in range(2):
            await worker.slots.acquire("one", uuid4(), limit=3)
        figures = await look_at_providers(broker)
        assert figures == {
            "one": ProviderFigures(state=CircuitState.OPEN, slots=3, in_use=2),
            "other": ProviderFigures(state=CircuitState.CLOSED, slots=100, in_use=0),
        }


async def test_alarms_follow_the_configuration(settings: Settings, tmp_path: Path) -> None:
    """Every provider's stand at 0 from the start, and those of one that a reload adds from then on."""
    before = replicate("http://127.0.0.1:9", name="one") + route("upscale", "[{ one = 1 }]")
    with_provider = settings_with(settings, tmp_path, before)
    async with running_services(with_provider) as broker:
        assert 'lethe_provider_unknown_total{provider="one"} 0.0' in render(broker.metrics.registry).decode()
        (tmp_path / "lethe.toml").write_text(CONFIG + route("upscale", "[{ one = 1, other = 1 }]"))

        async def is_known() -> bool:
            return 'lethe_provider_unknown_total{provider="other"} 0.0' in render(broker.metrics.registry).decode()

        await eventually(is_known)

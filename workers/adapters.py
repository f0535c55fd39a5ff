"""The providers that one worker runs, by their names in lethe.toml; they change with it while jobs go on."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec
import structlog

from broker.adapter_setup import made_ready, setup_of
from broker.attempts import PURGE_FOR_S
from broker.routes import Config, OutsideProvider
from broker.settings import Settings
from policies.toml_file import ConfigInvalid
from providers.base import Exposure, Provider, Setup
from providers.download import Downloader, DownloadRules

log = structlog.get_logger()

RETIRE_AFTER_S = PURGE_FOR_S + 3600.0
"""An adapter that a new configuration replaced is kept for the attempts that it began, until they are purged."""


class Outlet(msgspec.Struct, frozen=True, kw_only=True):
    """A provider outside, ready to be used: how it is configured, its adapter, and how its outputs are fetched."""

    name: str
    configured: OutsideProvider
    setup: Setup
    adapter: Provider
    downloader: Downloader

    async def aclose(self) -> None:
        """Let go of its connections."""
        await self.adapter.aclose()
        await self.downloader.aclose()


class Adapters:
    """
    In-house models that were loaded at start, and adapters that come and go with the configuration.

    A model that a new configuration adds needs a new worker: loading it would stop the jobs that run.
    """

    def __init__(self, settings: Settings, pool: str, *, models: Mapping[str, Provider]) -> None:
        self._settings = settings
        self._pool = pool
        self._models = models
        self._inside: dict[str, Provider] = {}
        self._outlets: dict[str, Outlet] = {}
        self._former: dict[str, Outlet] = {}
        self._retired: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self.changed: Callable[[], None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The providers that this worker runs."""
        return tuple(sorted({*self._inside, *self._outlets}))

    @property
    def outside(self) -> dict[str, Provider]:
        """The adapters, by the names of their providers."""
        return {name: outlet.adapter for name, outlet in self._outlets.items()}

    @property
    def known(self) -> tuple[str, ...]:
        """The providers outside that can be asked about attempts: those that run, and those that did."""
        return tuple(sorted({*self._outlets, *self._former}))

    def get(self, name: str) -> Provider | Outlet | None:
        """Return a provider that this worker runs, or one that it ran, for the attempts that it began."""
        return self._inside.get(name) or self.outlet(name)

    def outlet(self, name: str) -> Outlet | None:
        """Return a provider outside."""
        return self._outlets.get(name) or self._former.get(name)

    def model(self, name: str) -> Provider | None:
        """Return an in-house model, by the name of its provider."""
        return self._inside.get(name)

    async def check(self, config: Config) -> None:
        """Raise ConfigInvalid where a provider of this pool cannot be used: a secret is missing, an option is wrong."""
        for name, configured in self._outside(config).items():
            setup = setup_of(config, name)
            if self._kept(name, configured, setup) is None:
                await (await _outlet(config, name, setup)).aclose()

    async def use(self, config: Config) -> None:
        """Take a configuration into use; raise ConfigInvalid with what to mend where an adapter is not ready."""
        async with self._turn:
            await self._use(config)

    async def _use(self, config: Config) -> None:
        outlets: dict[str, Outlet] = {}
        for name, configured in self._outside(config).items():
            setup = setup_of(config, name)
            outlets[name] = self._kept(name, configured, setup) or await _outlet(config, name, setup)
        self._inside = {
            name: self._models[configured.model]
            for name, configured in config.of_pool(self._pool).items()
            if not isinstance(configured, OutsideProvider) and configured.model in self._models
        }
        before, self._outlets = self._outlets, outlets
        for name, outlet in before.items():
            if outlet is not outlets.get(name):
                self._retire(outlet)
        await self._remember_unrouted(config)
        if self.changed is not None:
            self.changed()

    async def _remember_unrouted(self, config: Config) -> None:
        """A provider that was taken off its routes may still have something to delete; one that is not ready, not."""
        for name, configured in config.outside.items():
            if configured.pool == self._pool and name not in self._outlets and name not in self._former:
                with suppress(ConfigInvalid):
                    self._retire(await _outlet(config, name, setup_of(config, name)))

    async def aclose(self) -> None:
        """Let go of every adapter and model."""
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        for outlet in (*self._outlets.values(), *self._former.values()):
            await outlet.aclose()
        for model in self._models.values():
            await model.aclose()

    def _outside(self, config: Config) -> dict[str, OutsideProvider]:
        routed = config.of_pool(self._pool)
        return {name: found for name, found in routed.items() if isinstance(found, OutsideProvider)}

    def _kept(self, name: str, configured: OutsideProvider, setup: Setup) -> Outlet | None:
        # The setup has the secret: a file with a new one takes effect with the next reload.
        known = self._outlets.get(name)
        return known if known is not None and (known.configured, known.setup) == (configured, setup) else None

    def _retire(self, outlet: Outlet) -> None:
        async def later() -> None:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(RETIRE_AFTER_S)
            if self._former.get(outlet.name) is outlet:
                del self._former[outlet.name]
            await outlet.aclose()

        self._former[outlet.name] = outlet
        task = asyncio.create_task(later())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


async def _outlet(config: Config, name: str, setup: Setup) -> Outlet:
    configured = config.outside[name]
    adapter = await made_ready(config, name, setup)
    return Outlet(
        name=name, configured=configured, setup=setup, adapter=adapter, downloader=Downloader(_rules(configured))
    )


def _rules(configured: OutsideProvider) -> DownloadRules:
    return DownloadRules(
        base_url=configured.base_url,
        hosts=configured.hosts,
        is_local=configured.exposure is Exposure.LOCAL or configured.is_loopback,
    )

"""What runs where: lethe.toml as providers and routes, checked whole, or refused with file, line and reason."""

from pathlib import Path
from typing import Annotated

import msgspec

from broker.operations import OPERATIONS
from policies.base import ProviderTerms
from policies.toml_file import TomlFile, TomlPath
from providers.base import Exposure

DEFAULT_FILE = Path(__file__).with_name("lethe.toml")

INHOUSE_MODELS: dict[str, frozenset[str]] = {
    "realesrgan": frozenset({"upscale"}),
    "pencil": frozenset({"restyle"}),
    "noop": frozenset({"noop"}),
}
"""The operations that each in-house model runs; the models themselves are the workers' business."""

Name = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,31}$")]
Weight = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Tier = Annotated[dict[str, Weight], msgspec.Meta(min_length=1)]


class InhouseProvider(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="adapter", tag="inhouse"
):
    """A model in worker processes of ours: pictures stay here, and nothing of them is kept."""

    pool: Name
    model: str
    exposure: Exposure

    @property
    def operations(self) -> frozenset[str]:
        """The operations that it can run."""
        return INHOUSE_MODELS.get(self.model, frozenset())

    @property
    def terms(self) -> ProviderTerms:
        """What the disclosure policy is asked about."""
        return ProviderTerms(exposure=self.exposure, retention_s=0)


Provider = InhouseProvider
"""One member per adapter; `adapter` in the file tells which."""


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which providers run an operation: within a tier by weight, the next tier where one fails."""

    operation: str
    tiers: Annotated[tuple[Tier, ...], msgspec.Meta(min_length=1)]

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of all providers, in the order in which they are preferred."""
        return tuple(name for tier in self.tiers for name in sorted(tier, key=lambda name: -tier[name]))


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A whole configuration that has been checked."""

    providers: dict[str, Provider]
    routes: dict[str, Route]

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations that have a route, in the order of the file."""
        return tuple(self.routes)

    def route(self, operation: str) -> Route | None:
        """Return the operation's route."""
        return self.routes.get(operation)

    def provider_of(self, operation: str) -> Provider | None:
        """Return the provider that an operation's jobs go to first."""
        route = self.route(operation)
        return self.providers[route.providers[0]] if route else None

    def pool_of(self, operation: str) -> str | None:
        """Return the pool of workers that an operation's jobs wait for."""
        provider = self.provider_of(operation)
        return provider.pool if provider else None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    provider: dict[Name, dict[str, object]]
    route: tuple[dict[str, object], ...]


def load_config(path: Path | None = None) -> Config:
    """Read and check a configuration, by default the one that ships with Lethe; raise ConfigInvalid."""
    return read_config(TomlFile.read(path or DEFAULT_FILE))


def read_config(file: TomlFile) -> Config:
    """Check a configuration whole; raise ConfigInvalid with file, line and reason."""
    parts = file.decode(_File)
    providers = {name: _provider(file, name) for name in parts.provider}
    routes: dict[str, Route] = {}
    for n in range(len(parts.route)):
        route = _route(file, n, providers)
        if route.operation in routes:
            raise file.invalid(("route", n, "operation"), f"{route.operation} has a route already")
        routes[route.operation] = route
    return Config(providers=providers, routes=routes)


def _provider(file: TomlFile, name: str) -> Provider:
    at: TomlPath = ("provider", name)
    provider = file.decode(Provider, at=at)
    if not provider.operations:
        raise file.invalid((*at, "model"), f"no in-house model has this name; there is {', '.join(INHOUSE_MODELS)}")
    return provider


def _route(file: TomlFile, n: int, providers: dict[str, Provider]) -> Route:
    at: TomlPath = ("route", n)
    route = file.decode(Route, at=at)
    if route.operation not in OPERATIONS:
        raise file.invalid((*at, "operation"), f"no operation has this name; there is {', '.join(OPERATIONS)}")
    if len(route.providers) > 1:
        raise file.invalid((*at, "tiers"), "more than one provider per route is not supported yet")
    for name in route.providers:
        if name not in providers:
            raise file.invalid((*at, "tiers", 0, name), "no [provider] has this name")
        if route.operation not in providers[name].operations:
            raise file.invalid((*at, "tiers", 0, name), f"this provider does not run {route.operation}")
    return route

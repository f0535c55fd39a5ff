"""The vocabulary of lethe.toml: providers, routes, and the whole of both once it is checked (`config.py` does that)."""

import ipaddress
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from broker.operations import OPERATIONS
from policies.base import ProviderTerms
from policies.toml_file import ConfigInvalid
from providers.base import Deletes, Exposure, Model, Takes, Terms
from providers.registry import ADAPTERS

_PIXELS = Terms(takes=Takes.PIXELS, operations=frozenset(OPERATIONS), exposure=Exposure.LOCAL)

INHOUSE_MODELS: dict[str, dict[str, Model]] = {
    "realesrgan": {"upscale": Model(input={"image": "$image", "scale": "$scale", "quality": "$quality"})},
    "pencil": {
        "restyle": Model(
            input={"image": "$image", "filter": "$filter", "strength": "$strength"}, values={"filter": ("pencil",)}
        )
    },
    "noop": {"noop": Model(input={"image": "$image"})},
}
"""What each in-house model runs, and which parameters it knows; the models themselves are the workers' business."""

NAME = "[a-z][a-z0-9_]{0,31}"
"""What a provider or a pool may be called."""
Name = Annotated[str, msgspec.Meta(pattern=f"^{NAME}$")]
MAX_WEIGHT = 1000
Weight = Annotated[int, msgspec.Meta(ge=1, le=MAX_WEIGHT)]
Tier = Annotated[dict[str, Weight], msgspec.Meta(min_length=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class InhouseProvider(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="adapter", tag="inhouse"
):
    """A model in worker processes of ours: pictures stay here, and nothing of them is kept."""

    pool: Name
    model: str
    exposure: Exposure

    adapter = "inhouse"
    retention_s = 0
    deletes = Deletes.NONE
    concurrency = 0
    adapter_terms = _PIXELS

    @property
    def models(self) -> Mapping[str, Model]:
        """How each operation is run."""
        return INHOUSE_MODELS.get(self.model, {})

    @property
    def operations(self) -> frozenset[str]:
        """The operations that it can run."""
        return frozenset(self.models)

    @property
    def terms(self) -> ProviderTerms:
        """What the disclosure policy is asked about."""
        return ProviderTerms(exposure=self.exposure, retention_s=0)


class OutsideProvider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server that is not a worker of ours, spoken to through an adapter."""

    adapter: str
    exposure: Exposure
    operation: Annotated[dict[str, Model], msgspec.Meta(min_length=1)]
    base_url: str = ""
    pool: Name = "relay"
    secret: str | None = None
    """`env:NAME` or `file:/path`; only workers resolve it."""
    hosts: tuple[str, ...] = ()
    """Where outputs may be fetched from, apart from `base_url`: exact names, or `*.name` for all below one."""
    retention_s: Annotated[int, msgspec.Meta(ge=0)] = -1
    """How long something of an attempt may stay there; the adapter's documented time unless it is given."""
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 8
    """How many attempts may run there at once, in all workers together."""
    contract: str = ""
    """Names the agreement by which exposure or retention are lower than the adapter's documents say."""
    region: str = ""
    """Where its servers stand, as the notice says it: `EU`, `United States`."""
    timeout_s: Positive = 30.0
    options: dict[str, Any] = {}

    @property
    def models(self) -> Mapping[str, Model]:
        """How each operation is run."""
        return self.operation

    @property
    def operations(self) -> frozenset[str]:
        """The operations that it is configured for."""
        return frozenset(self.operation)

    @property
    def is_loopback(self) -> bool:
        """Whether it answers on this machine."""
        return is_loopback(urlsplit(self.base_url).hostname or "")

    @property
    def adapter_terms(self) -> Terms:
        """What the adapter documents."""
        return ADAPTERS[self.adapter].terms

    @property
    def deletes(self) -> Deletes:
        """How what it has goes away."""
        return self.adapter_terms.deletes

    @property
    def terms(self) -> ProviderTerms:
        """What the disclosure policy is asked about."""
        return ProviderTerms(exposure=self.exposure, retention_s=self.retention_s, region=self.region)


Provider = InhouseProvider | OutsideProvider


class After(StrEnum):
    """What a route does when an attempt ended in a way that is not simply tried again."""

    STOP = "stop"
    NEXT = "next"


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which providers run an operation: within a tier by weight, the next tier where one fails."""

    operation: str
    tiers: Annotated[tuple[Tier, ...], msgspec.Meta(min_length=1)]
    tries: Annotated[int, msgspec.Meta(ge=1, le=20)] = 4
    """How many attempts a job gets in all."""
    deadline_s: Positive | None = None
    """A job of this operation has to end within this time, where the profile allows longer."""
    max_usd: Positive | None = None
    """What the attempts of one job may cost together."""
    on_reject: After = After.STOP
    """Whether a picture that one provider's moderation refused may be shown to the next."""
    on_uncertain: After = After.STOP
    """Whether the next provider is paid where one may have done the work already."""
    overflow_after_s: Positive | None = None
    """When a job has waited this long for an in-house pool, providers outside it come first."""

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of all providers, in the order in which they are preferred."""
        return tuple(name for tier in self.tiers for name in sorted(tier, key=lambda name: -tier[name]))


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a provider stands: the line of its table, and those of its fields."""

    file: str
    line: int
    lines: dict[str, int]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """
    A whole configuration that has been checked; `places` let whoever finds more wrong with it name file and line.

    They are of providers by name, and of each "route <operation>".
    """

    providers: dict[str, Provider]
    routes: dict[str, Route]
    places: dict[str, Place] = {}

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations that have a route, in the order of the file."""
        return tuple(self.routes)

    def route(self, operation: str) -> Route | None:
        """Return the operation's route."""
        return self.routes.get(operation)

    def routed(self, operation: str) -> list[Provider]:
        """Return the providers on an operation's route."""
        route = self.route(operation)
        return [self.providers[name] for name in route.providers] if route else []

    def unrouted(self, operation: str, reason: str) -> ConfigInvalid:
        """Make the error for a route that leads nowhere."""
        place = self.places[f"route {operation}"]
        return ConfigInvalid(file=place.file, line=place.line, reason=f"route of {operation}: {reason}")

    def invalid(self, provider: str, field: str, reason: str) -> ConfigInvalid:
        """Make the error for a provider that turned out to be wrong when it was put to use; no field is all of it."""
        place = self.places[provider]
        where = f"provider.{provider}.{field}".rstrip(".")
        return ConfigInvalid(file=place.file, line=place.lines.get(field, place.line), reason=f"{where}: {reason}")

    @property
    def outside(self) -> dict[str, OutsideProvider]:
        """Return the providers that are no workers of ours."""
        return {name: p for name, p in self.providers.items() if isinstance(p, OutsideProvider)}

    @property
    def routed_names(self) -> frozenset[str]:
        """Name the providers that a route leads to."""
        return frozenset(name for route in self.routes.values() for name in route.providers)

    def of_pool(self, pool: str) -> dict[str, Provider]:
        """Return the routed providers that the workers of a pool run."""
        routed = self.routed_names
        return {name: p for name, p in self.providers.items() if p.pool == pool and name in routed}


def is_loopback(host: str) -> bool:
    """Whether a host name is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

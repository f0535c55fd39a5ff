"""Routes and providers for tests of routing, built without a file."""

from collections.abc import Mapping
from typing import Any

from broker.routes import Config, InhouseProvider, OutsideProvider, Provider, Route
from broker.routing import Disclose, Needs, Standing, explain
from policies.base import ProviderTerms, Refuse
from providers.base import Exposure, Model
from providers.registry import ADAPTERS

EDIT = Needs(operation="edit", parameters={"prompt": "a hat", "count": 1}, pictures=1)
UPSCALE = Needs(operation="upscale", parameters={"scale": 2, "quality": "fast"}, pictures=1)
MOST = ADAPTERS["replicate"].terms.max_pictures
TAKES_ALL: dict[str, Any] = {"prompt": "$prompt", "image": "$image", "images": "$images", "n": "$count:1"}


def provider(
    *, exposure: Exposure = Exposure.EPHEMERAL, retention_s: int = 3600, operation: str = "edit", **model: Any
) -> OutsideProvider:
    """A third party whose adapter takes up to MOST pictures, and sends those that its model's input names."""
    whole: dict[str, Any] = {"input": TAKES_ALL, "max_outputs": 4, **model}
    return OutsideProvider(
        adapter="replicate",
        base_url="https://api.replicate.com",
        exposure=exposure,
        retention_s=retention_s,
        operation={operation: Model(**whole)},
    )


def ours(model: str = "realesrgan") -> InhouseProvider:
    """A model of ours in the gpu pool."""
    return InhouseProvider(pool="gpu", model=model, exposure=Exposure.LOCAL)


def config(*tiers: Mapping[str, int], operation: str = "edit", providers: Any = None, **route: Any) -> Config:
    """One route over these tiers; providers that are not given can do everything."""
    names = {name for tier in tiers for name in tier}
    known: dict[str, Provider] = {name: provider(operation=operation) for name in sorted(names)} | (providers or {})
    found = Route(operation=operation, tiers=tuple(dict(tier) for tier in tiers), **route)
    return Config(providers=known, routes={operation: found})


def anybody(terms: ProviderTerms) -> Refuse | None:
    """A policy without an objection."""
    del terms


def ranked(
    config: Config,
    needs: Needs = EDIT,
    *,
    job: int = 1,
    standings: Mapping[str, Standing] | None = None,
    disclose: Disclose = anybody,
) -> list[str]:
    """The candidates of one job, where no policy objects unless one is given."""
    verdicts = explain(config, needs, disclose=disclose, standings=standings or {}, seed=job)
    return [verdict.provider for verdict in verdicts if not verdict.reason]

"""Makes the adapter of a provider from what lethe.toml says of it; what is wrong is named with its line."""

import msgspec

from broker.routes import Config
from broker.settings import resolve_secret
from policies.toml_file import ConfigInvalid
from providers.base import Provider, Setup
from providers.failures import ProviderFailure
from providers.registry import ADAPTERS


def setup_of(config: Config, name: str, secret: str | None = None) -> Setup:
    """Say what the adapter of a provider outside is made from; raise ConfigInvalid where its secret is not there."""
    configured = config.outside[name]
    if secret is None:
        secret = resolve_secret(configured.secret) if configured.secret else ""
    if secret is None:
        raise config.invalid(name, "secret", f"{configured.secret} is empty, or cannot be read")
    return Setup(
        base_url=configured.base_url,
        models=configured.operation,
        secret=secret,
        options=configured.options,
        timeout_s=configured.timeout_s,
    )


async def made_ready(config: Config, name: str, setup: Setup) -> Provider:
    """Make an adapter and get it ready; raise ConfigInvalid where that fails."""
    try:
        adapter = ADAPTERS[config.outside[name].adapter](setup)
    except ProviderFailure as exc:
        raise _unready(config, name, exc) from None
    except (msgspec.ValidationError, ValueError, TypeError) as exc:
        raise config.invalid(name, "options", str(exc)) from None
    try:
        await adapter.warm()
    except ProviderFailure as exc:
        await adapter.aclose()
        raise _unready(config, name, exc) from None
    return adapter


def _unready(config: Config, name: str, failure: ProviderFailure) -> ConfigInvalid:
    """Name the place that an adapter means: it puts an operation, or the word "options", in front of what is wrong."""
    where, _, reason = failure.detail.partition(": ")
    if reason and where in {"options", *config.providers[name].operations}:
        return config.invalid(name, where if where == "options" else f"operation.{where}", reason)
    return config.invalid(name, "", failure.detail or str(failure.kind))

"""Every in-house model by the name that lethe.toml gives it."""

from collections.abc import Mapping
from pathlib import Path

from providers.base import Provider
from workers.models.noop import Noop
from workers.models.restyle import Pencil
from workers.models.upscale import Upscale


def in_house(models_dir: Path) -> dict[str, Provider]:
    """Make the in-house providers; none is warm yet."""
    providers: tuple[Provider, ...] = (Upscale(models_dir), Pencil(), Noop())
    return {provider.name: provider for provider in providers}


def speeds(providers: Mapping[str, Provider]) -> dict[str, float]:
    """Gather the seconds per input megapixel of every variant of the warm providers, for the broker's admission."""
    measured = [provider.speed() for provider in providers.values() if isinstance(provider, Upscale | Pencil)]
    return {variant: rate for rates in measured for variant, rate in rates.items()}

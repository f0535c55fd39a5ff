"""What a lethe.toml asks of whoever runs it: a worker for each pool, secrets in variables, a profile that agrees."""

from broker.routes import Config
from broker.routing import Needs, Verdict, explain
from policies.registry import Policies, Profile

_VARIABLE = "env:"


def pools(config: Config) -> tuple[str, ...]:
    """Name the pools that a route leads to; each needs a worker."""
    return tuple(sorted({config.providers[name].pool for name in config.routed_names}))


def secret_variables(config: Config) -> frozenset[str]:
    """Name the environment variables that hold a provider's secret: workers read them, and nobody else needs them."""
    secrets = (provider.secret or "" for provider in config.outside.values())
    return frozenset(secret.removeprefix(_VARIABLE) for secret in secrets if secret.startswith(_VARIABLE))


def judged(config: Config, profile: Profile) -> dict[str, list[Verdict]]:
    """Judge the providers of every route by what stays as it is: profile, models, prices; not by who is alive."""
    disclose = Policies(profile).disclose_clean
    return {name: explain(config, Needs.any_of(name), disclose=disclose, standings={}) for name in config.operations}


def closed(config: Config, profile: Profile) -> dict[str, str]:
    """Say of each operation that nobody can run, whatever worker is alive, why that is so."""
    found = {name: verdicts for name, verdicts in judged(config, profile).items() if all(v.reason for v in verdicts)}
    return {name: "; ".join(f"{v.provider}: {v.reason}" for v in verdicts) for name, verdicts in found.items()}

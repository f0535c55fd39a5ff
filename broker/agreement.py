"""What lethe.toml and the profile have to agree on: every operation has a provider that may be shown its pictures."""

from broker.routes import Config
from policies.registry import Policies


def require_agreement(config: Config, policies: Policies) -> None:
    """
    Raise ConfigInvalid, with the line of the route, where the profile forbids every provider of an operation.

    Nobody could ever run it, so that whoever wrote both files means something else.
    """
    for operation in config.operations:
        refusals = [policies.disclose_clean(provider.terms) for provider in config.routed(operation)]
        if all(refusals):
            reason = "; ".join(dict.fromkeys(refusal.reason for refusal in refusals if refusal))
            profile = policies.profile.name
            raise config.unrouted(operation, f"the profile {profile} allows none of its providers: {reason}")

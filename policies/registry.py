"""The named sets of policies: a profile is a file, checked whole, and composed so that the strictest policy wins."""

from functools import reduce
from pathlib import Path

import msgspec

from policies.base import Admit, Destroy, Ending, Facts, Policy, ProviderTerms, Refuse, Retain
from policies.consent import Consent
from policies.credits import Credits
from policies.deadlines import Deadlines
from policies.disclosure import Disclosure
from policies.ephemeral import Ephemeral
from policies.limits import Limits
from policies.metadata import Metadata
from policies.posture import Demands
from policies.publisher import Publisher
from policies.retention import DAY_S, Outputs, Retention
from policies.rights import Rights
from policies.toml_file import ConfigInvalid, TomlFile

PROFILES = Path(__file__).parent / "profiles"


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A profile file: its name, one table per policy that has settings, and what the deployment must be."""

    name: str
    limits: Limits
    deadlines: Deadlines
    metadata: Metadata
    disclosure: Disclosure
    retention: Retention
    posture: Demands
    consent: Consent = Consent()
    publisher: Publisher = Publisher()
    credits: Credits = Credits()
    rights: Rights = Rights()

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies in the order in which they are asked; `Ephemeral` is in every profile."""
        first = (Ephemeral(), self.rights, self.limits, self.deadlines, self.metadata, self.disclosure, self.retention)
        return (*first, self.consent, self.credits)


def profile_names() -> list[str]:
    """Name the profiles that ship with Lethe."""
    return sorted(path.stem for path in PROFILES.glob("*.toml"))


def load_profile(name: str) -> Profile:
    """Load a shipped profile by its name, or an operator's by a path that ends in .toml; raise ConfigInvalid."""
    if name.endswith(".toml"):
        return read_profile(TomlFile.read(Path(name)))
    if name not in profile_names():
        raise ConfigInvalid(file=name, line=0, reason=f"no such profile; there is {', '.join(profile_names())}")
    return read_profile(TomlFile.read(PROFILES / f"{name}.toml"))


def read_profile(file: TomlFile) -> Profile:
    """Turn a file into a profile, refusing settings that contradict each other."""
    profile = file.decode(Profile)
    if profile.deadlines.start_within_s > profile.deadlines.finish_within_s:
        raise file.invalid(("deadlines", "start_within_s"), "is longer than finish_within_s")
    _check_retention(profile.retention, file)
    if profile.disclosure.regions and profile.publisher.region not in profile.disclosure.regions:
        raise file.invalid(
            ("disclosure", "regions"), "does not hold the region of [publisher], where our own stores stand"
        )
    setting, reason = profile.consent.fault
    if reason:
        raise file.invalid(("consent", setting), reason)
    return profile


def _check_retention(retention: Retention, file: TomlFile) -> None:
    if retention.outputs is Outputs.UNTIL_DELETED and not retention.sealed:
        raise file.invalid(("retention", "outputs"), "until_deleted needs sealed = true: what we can open has an end")
    if retention.outputs_for_s > DAY_S and not retention.sealed:
        raise file.invalid(("retention", "outputs_for_s"), "is longer than 24 h, which needs sealed = true")
    if retention.records_for_s < retention.outputs_for_s and retention.outputs is not Outputs.UNTIL_DELETED:
        raise file.invalid(("retention", "records_for_s"), "is shorter than outputs_for_s; an output needs its record")
    if retention.idle_user_for_s < retention.records_for_s:
        raise file.invalid(("retention", "idle_user_for_s"), "is shorter than records_for_s; a record needs its user")


class Policies:
    """All policies of a profile as one: any refusal holds, any demand to destroy holds, the shortest time holds."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._policies = profile.policies

    def admit(self, facts: Facts) -> Admit | Refuse:
        """Ask whether a job may enter, and by when it has to start and finish."""
        refusals = (policy.admit(facts) for policy in self._policies)
        return next((refusal for refusal in refusals if refusal), self.profile.deadlines.within(facts))

    def admit_user(self, minted_lately: int) -> Refuse | None:
        """Ask whether one more anonymous user may be made from an address prefix."""
        return self.profile.limits.admit_user(minted_lately)

    def disclose(self, facts: Facts, terms: ProviderTerms) -> Refuse | None:
        """Ask whether the picture may go to a provider under these terms."""
        refusals = (policy.disclose(facts, terms) for policy in self._policies)
        return next((refusal for refusal in refusals if refusal), None)

    def disclose_clean(self, terms: ProviderTerms) -> Refuse | None:
        """Ask the same of a picture that was rebuilt from its pixels, whatever is to be done with it."""
        return self.disclose(Facts(operation="", is_clean=True), terms)

    def settle(self, ending: Ending) -> Destroy:
        """Ask what has to be destroyed before the job may be final."""
        return reduce(Destroy.also, (policy.settle(ending) for policy in self._policies))

    def retain(self, facts: Facts) -> Retain:
        """Ask how long outputs and records stay."""
        return reduce(Retain.at_most, (answer for policy in self._policies if (answer := policy.retain(facts))))

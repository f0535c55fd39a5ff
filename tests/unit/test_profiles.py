"""The profiles that ship: what each app of PROMISES promises, as settings that a broker keeps."""

from pathlib import Path

import pytest

from broker.reload import LiveConfig
from policies.base import Admit, Facts, ProviderTerms, Refuse
from policies.consent import Purpose
from policies.disclosure import Disclosure
from policies.registry import Policies, load_profile, profile_names
from policies.retention import DAY_S, Outputs
from policies.toml_file import ConfigInvalid
from providers.base import Exposure
from tests.profiles import profile_file

APPS = ("headpix", "imaginex", "m2r", "minimal", "xpictures")


def refused(name: str, terms: ProviderTerms) -> bool:
    return Policies(load_profile(name)).disclose_clean(terms) is not None


def test_there_is_one_for_each_app() -> None:
    """Five, each of which reads without a fault, under its own name, and fits the lethe.toml that ships."""
    assert tuple(profile_names()) == APPS
    for name in APPS:
        assert load_profile(name).name == name
        assert LiveConfig().current.operations


@pytest.mark.parametrize("name", APPS)
def test_every_profile_demands_what_minimal_demands(name: str) -> None:
    """core-5: nobody promises less of the processes that hold a picture."""
    assert set(load_profile("minimal").posture.demands) <= set(load_profile(name).posture.demands)


def test_xpictures_asks_before_a_face_goes_abroad_and_has_prices() -> None:
    """xpictures-5, -7, -10, -12, -14: prices, a day, consent to providers and transfer, 13 years, 30 days."""
    profile = load_profile("xpictures")
    assert {Purpose.PROVIDERS, Purpose.TRANSFER} <= set(profile.consent.required)
    assert (profile.consent.min_age, profile.consent.announce_days) == (13, 30)
    assert profile.credits.price("animate") == 5
    assert profile.retention.outputs_for_s == DAY_S
    asked = Facts(operation="animate", consents=frozenset(), stated_age=0, notice="x")
    answer = Policies(profile).admit(asked)
    assert isinstance(answer, Refuse)
    assert answer.code == "consent_required"


def test_m2r_keeps_a_gallery_that_it_cannot_open_and_sends_nothing_out() -> None:
    """m2r-4, m2r-5, m2r-12: until the user deletes it, sealed to devices; no provider sees a picture."""
    profile = load_profile("m2r")
    assert (profile.retention.outputs, profile.retention.sealed) == (Outputs.UNTIL_DELETED, True)
    assert profile.retention.records_for_s <= 4 * DAY_S
    assert refused("m2r", ProviderTerms(exposure=Exposure.EPHEMERAL, retention_s=0))
    no_device = Policies(profile).admit(Facts(operation="upscale", device_keys=0))
    assert isinstance(no_device, Refuse)
    assert no_device.code == "device_key_required"


def test_imaginex_goes_only_to_who_keeps_nothing_and_keeps_nothing_itself() -> None:
    """imaginex-4: nothing is stored there for a second; results go once they are delivered."""
    kept = ProviderTerms(exposure=Exposure.EPHEMERAL, retention_s=1)
    nothing = ProviderTerms(exposure=Exposure.EPHEMERAL, retention_s=0)
    logged = ProviderTerms(exposure=Exposure.LOGGED, retention_s=0)
    assert [refused("imaginex", terms) for terms in (kept, nothing, logged)] == [True, False, True]
    assert load_profile("imaginex").retention.outputs is Outputs.UNTIL_DELIVERED


def test_headpix_announces_two_weeks_ahead_and_keeps_portraits_sealed() -> None:
    """headpix-7, headpix-9: 14 days, and portraits until they are deleted."""
    profile = load_profile("headpix")
    assert (profile.consent.announce_days, profile.consent.min_age) == (14, 16)
    assert (profile.retention.outputs, profile.retention.sealed) == (Outputs.UNTIL_DELETED, True)
    assert profile.retention.records_for_s <= 14 * DAY_S


def test_minimal_asks_for_nothing() -> None:
    """minimal-1: no consent, no price, no device; a job enters as it is."""
    facts = Facts(operation="upscale", consents=frozenset(), credits=0, device_keys=0)
    assert isinstance(Policies(load_profile("minimal")).admit(facts), Admit)


@pytest.mark.parametrize(
    ("region", "is_allowed"), [("Frankfurt", True), ("Virginia", False), ("", False), (None, True)]
)
def test_a_provider_stands_where_the_profile_allows(*, region: str | None, is_allowed: bool) -> None:
    """m2r-7: one that stands elsewhere, or says nothing, gets no picture; our own workers stand where we do."""
    policy = Disclosure(regions=("Frankfurt", "Dublin"))
    answer = policy.disclose(Facts(operation=""), ProviderTerms(exposure=Exposure.LOCAL, retention_s=0, region=region))
    assert (answer is None) is is_allowed


def test_our_own_stores_stand_where_the_profile_allows(tmp_path: Path) -> None:
    """A profile whose regions do not hold that of its publisher contradicts itself, and is refused with the line."""

    def ours(*publisher: str) -> str:
        return profile_file(tmp_path, *publisher, exposure='"local"\nregions = ["Frankfurt"]')

    for publisher in ("", '[publisher]\nregion = "Virginia"'):
        file = ours(publisher)
        with pytest.raises(ConfigInvalid, match="does not hold the region") as caught:
            load_profile(file)
        assert "regions" in Path(file).read_text().splitlines()[caught.value.line - 1]
    assert load_profile(ours('[publisher]\nregion = "Frankfurt"')).disclosure.regions == ("Frankfurt",)

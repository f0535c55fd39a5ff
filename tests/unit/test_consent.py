"""What a profile asks of users before their work is taken in."""

import pytest

from policies.base import Facts, RefusalCode, Refuse
from policies.consent import Consent, Purpose
from policies.registry import Policies, load_profile, read_profile
from policies.toml_file import ConfigInvalid, TomlFile
from tests.profiles import MINIMAL

STRICT = Consent(required=(Purpose.PROCESSING, Purpose.PROVIDERS), optional=(Purpose.PUSH,), min_age=13)


def profile_with(table: str) -> TomlFile:
    return TomlFile(f"{MINIMAL}\n[consent]\n{table}\n", name="p.toml")


def asked(consents: set[str] | None, age: int = 0) -> Refuse | None:
    given = None if consents is None else frozenset(consents)
    return STRICT.admit(Facts(operation="upscale", consents=given, notice="2026-01-01.abc", stated_age=age))


def test_the_minimal_profile_asks_for_nothing() -> None:
    """Without the table nothing is required, nobody is asked, and a changed notice holds at once."""
    consent = load_profile("minimal").consent
    assert consent == Consent()
    assert not consent.is_asked
    assert consent.announce_days == 0
    assert consent.admit(Facts(operation="upscale", consents=frozenset())) is None


def test_what_is_missing_is_named() -> None:
    """A refusal names every purpose that is missing, the age, and the notice in force."""
    refusal = asked(set())
    assert refusal is not None
    assert refusal.code is RefusalCode.CONSENT_REQUIRED
    assert refusal.purposes == ("processing", "providers")
    assert refusal.notice == "2026-01-01.abc"
    for word in ("processing", "providers", "at least 13", "2026-01-01.abc"):
        assert word in refusal.reason
    assert "push" not in refusal.reason


@pytest.mark.parametrize(
    ("consents", "age", "missing"),
    [
        ({"processing", "providers"}, 13, None),
        ({"processing", "providers", "push", "marketing"}, 16, None),
        ({"processing"}, 13, ("providers",)),
        ({"processing", "push"}, 0, ("providers",)),
        ({"processing", "providers"}, 12, ()),
        ({"processing", "providers"}, 0, ()),
    ],
)
def test_every_required_purpose_and_the_age_have_to_be_there(
    consents: set[str], age: int, missing: tuple[str, ...] | None
) -> None:
    """An optional purpose opens nothing, and an age alone can be what is missing."""
    refusal = asked(consents, age)
    assert (None if refusal is None else refusal.purposes) == missing


def test_nothing_is_said_before_it_was_looked_up() -> None:
    """What is not known yet is no refusal; admission asks again, as of everything."""
    assert asked(None) is None


def test_the_strictest_profile_refuses_at_the_door() -> None:
    """The policy has its place among those of the profile."""
    policies = Policies(read_profile(profile_with('required = ["processing"]\nmin_age = 16')))
    answer = policies.admit(Facts(operation="upscale", consents=frozenset({"processing"}), stated_age=13))
    assert isinstance(answer, Refuse)
    assert answer.code is RefusalCode.CONSENT_REQUIRED


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ('required = ["selling"]', "Invalid enum value 'selling'"),
        ("min_age = 14", "consent.min_age: Invalid enum value 14"),
        ("min_age = 13", "needs a required purpose"),
        ('required = ["push"]\noptional = ["push"]', "required already"),
        ("announce_days = -1", "consent.announce_days: Expected `int` >= 0"),
        ('requires = ["push"]', "unknown field `requires`"),
    ],
)
def test_a_wrong_table_is_refused(table: str, reason: str) -> None:
    """Unknown purposes, ages and contradictions name file, line and reason."""
    with pytest.raises(ConfigInvalid) as caught:
        read_profile(profile_with(table))
    assert reason in str(caught.value)
    assert caught.value.line > 0


@pytest.mark.parametrize(
    ("table", "consents", "missing"),
    [
        ('optional = ["push"]', {"marketing"}, ("push",)),
        ('optional = ["push"]', {"push"}, None),
        ('required = ["push"]', set[str](), ("push",)),
        ('required = ["processing"]\noptional = ["push"]', set[str](), ("processing", "push")),
        ('optional = ["marketing"]', set[str](), None),
    ],
)
def test_a_push_token_needs_consent_where_the_profile_asks(
    table: str, consents: set[str], missing: tuple[str, ...] | None
) -> None:
    """The purpose is optional for a job, and required of one that is to end with a push."""
    consent = read_profile(profile_with(table)).consent
    wanting = consent.admit(Facts(operation="upscale", consents=frozenset(consents), wants_push=True))
    assert (None if wanting is None else wanting.purposes) == missing
    assert consent.allows_push(frozenset(consents)) is (not consent.is_push_asked or "push" in consents)

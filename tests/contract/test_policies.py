"""One suite that every policy of every profile passes: pure, total, and never weaker together than alone."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import consent_errors, errors
from policies.base import Destroy, Ending, Facts, Policy, ProviderTerms, RefusalCode, Refuse, Retain
from policies.consent import Consent, Purpose
from policies.registry import Policies, load_profile, profile_names
from providers.base import Exposure

PROFILES = {name: load_profile(name) for name in profile_names()}
EVERY_POLICY = [
    pytest.param(policy, id=f"{name}-{type(policy).__name__}")
    for name, profile in PROFILES.items()
    for policy in profile.policies
]
EVERY_POLICY.append(pytest.param(Consent(required=tuple(Purpose), min_age=16), id="Consent-of-everything"))
PURE_IMPORTS = {"enum", "typing", "msgspec", "policies.base", "providers.base"}

sizes = st.none() | st.integers(min_value=0, max_value=10**12)
seconds = st.none() | st.floats()
facts_of_jobs = st.builds(
    Facts,
    operation=st.text(max_size=20),
    media_type=st.text(max_size=20),
    upload_bytes=sizes,
    width=sizes,
    height=sizes,
    output_pixels=sizes,
    expected_s=st.none() | st.floats(min_value=0, allow_nan=False),
    live_jobs=st.integers(min_value=0, max_value=10**6),
    jobs_last_minute=st.integers(min_value=0, max_value=10**6),
    start_within_s=seconds,
    finish_within_s=seconds,
    consents=st.none() | st.frozensets(st.sampled_from([str(purpose) for purpose in Purpose])),
    stated_age=st.integers(min_value=0, max_value=200),
    is_clean=st.booleans(),
)
all_terms = st.builds(
    ProviderTerms, exposure=st.sampled_from(Exposure), retention_s=st.integers(min_value=0, max_value=10**9)
)
outcomes = st.builds(Ending, outcome=st.sampled_from(["succeeded", "failed", "canceled", "expired"]))


def codes_of(root: type[errors.BrokerError]) -> set[str]:
    return {root.code}.union(*(codes_of(child) for child in root.__subclasses__()))


@pytest.mark.parametrize("policy", EVERY_POLICY)
@given(facts=facts_of_jobs, terms=all_terms, ending=outcomes)
def test_a_gate_answers_everything_with_a_value(
    policy: Policy, facts: Facts, terms: ProviderTerms, ending: Ending
) -> None:
    """No facts make a gate raise; asked twice it answers the same; a refusal has a code of ours and a reason."""
    for answer in (policy.admit(facts), policy.disclose(facts, terms)):
        assert answer is None or (isinstance(answer, Refuse) and answer.reason and isinstance(answer.code, RefusalCode))
    assert isinstance(policy.settle(ending), Destroy)
    retain = policy.retain(facts)
    assert retain is None or (isinstance(retain, Retain) and (retain.lifetime_s is None or retain.lifetime_s > 0))
    assert policy.admit(facts) == policy.admit(facts)
    assert policy.disclose(facts, terms) == policy.disclose(facts, terms)


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_a_policy_imports_nothing_that_acts(policy: Policy) -> None:
    """No I/O, no clock, no SDK: a policy's module sees the vocabulary and its own settings only."""
    module = importlib.import_module(type(policy).__module__)
    tree = ast.parse(Path(inspect.getfile(module)).read_text())
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    from_ = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert plain | from_ <= PURE_IMPORTS


@pytest.mark.parametrize("policy", EVERY_POLICY)
@given(facts=facts_of_jobs)
def test_a_refusal_quotes_no_fact_but_numbers(policy: Policy, facts: Facts) -> None:
    """What a client sent as text never comes back in a reason."""
    canary = "kanarienvogel"
    tainted = Facts(
        operation=canary,
        media_type=canary,
        upload_bytes=facts.upload_bytes,
        width=facts.width,
        height=facts.height,
        output_pixels=facts.output_pixels,
        expected_s=facts.expected_s,
        live_jobs=facts.live_jobs,
    )
    answer = policy.admit(tainted)
    assert answer is None or canary not in answer.reason + answer.pointer


@pytest.mark.parametrize("name", profile_names())
@given(facts=facts_of_jobs, terms=all_terms, ending=outcomes)
def test_together_policies_are_as_strict_as_the_strictest(
    name: str, facts: Facts, terms: ProviderTerms, ending: Ending
) -> None:
    """Any refusal holds, any demand to destroy holds, and uploads are always destroyed."""
    policies = Policies(PROFILES[name])
    alone = PROFILES[name].policies
    assert isinstance(policies.admit(facts), Refuse) is any(policy.admit(facts) for policy in alone)
    assert isinstance(policies.disclose(facts, terms), Refuse) is any(policy.disclose(facts, terms) for policy in alone)
    together = policies.settle(ending)
    assert together.uploads
    assert together.parameters
    assert together.outputs is any(policy.settle(ending).outputs for policy in alone)


@pytest.mark.parametrize("name", profile_names())
@given(facts=facts_of_jobs)
def test_no_client_lengthens_a_deadline(name: str, facts: Facts) -> None:
    """Whatever is asked for, an admitted job has a deadline of the profile or a shorter one, and some time at all."""
    answer = Policies(PROFILES[name]).admit(facts)
    if not isinstance(answer, Refuse):
        profile = PROFILES[name].deadlines
        assert 0 < answer.start_within_s <= profile.start_within_s
        assert answer.start_within_s <= answer.finish_within_s <= profile.finish_within_s


def test_every_refusal_is_an_error_that_clients_know() -> None:
    """A policy's code is the code of one BrokerError."""
    assert {str(code) for code in RefusalCode} <= codes_of(errors.BrokerError)
    assert consent_errors.ConsentRequired.code == RefusalCode.CONSENT_REQUIRED

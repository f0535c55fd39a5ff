"""Jobs at an emulated Replicate, through a real relay worker: what is sent, paid, kept and stated."""

import base64
import json
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from broker.attempts import AttemptState
from broker.jobs import JobState
from broker.services import Services
from broker.settings import Settings
from broker.sniff import ImageKind
from policies.base import Facts, ProviderTerms, RefusalCode, Refuse
from policies.registry import Policies
from tests.emulators.base import running
from tests.emulators.replicate import SECRET, ReplicateEmulator, script
from tests.images_corpus import marked
from tests.lifecycle import blobs
from tests.relay import (
    SECRET_VARIABLE,
    attempts,
    ended,
    receipt,
    relaying,
    replicate,
    route,
    sent,
    words,
)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Generator[ReplicateEmulator]:
    """An emulated Replicate."""
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    made = ReplicateEmulator()
    made.states = []  # done at the first question
    with running(made):
        yield made


@pytest.fixture
async def services(settings: Settings, tmp_path: Path, provider: ReplicateEmulator) -> AsyncGenerator[Services]:
    config = replicate(provider.url) + route("upscale", "[{ replicate = 1 }]")
    async with relaying(settings, tmp_path, config) as services:
        yield services


async def test_a_job_is_done_at_a_provider_and_its_receipt_says_what_is_there(
    services: Services, provider: ReplicateEmulator, settings: Settings
) -> None:
    """One order, one charge, three custody rows at the provider, each with its documented time; the output is kept."""
    job = await ended(services, await sent(services))

    assert (job.state, job.charged, job.provider_copies) == (JobState.SUCCEEDED, True, "expires")
    assert len(provider.requests("order")) == 1
    (attempt,) = await attempts(services, job)
    assert (attempt.state, attempt.provider, attempt.is_estimate) == (AttemptState.SUCCEEDED, "replicate", False)
    assert job.cost_usd == attempt.cost_usd == pytest.approx(0.00125)
    assert await words(services, job) == {"upload": "expires_by", "output": "expires_by", "record": "expires_by"}
    stated = await receipt(services, job)
    assert (stated.exposure, stated.provider_copies, stated.revision) == ("ephemeral", "expires", 1)
    assert {copy.provider for copy in stated.copies if copy.domain == "provider"} == {"replicate"}
    assert all(copy.until for copy in stated.copies if copy.domain == "provider")
    assert len(blobs(settings)) == 1, "the output alone"


async def test_what_leaves_is_a_clean_picture_and_a_fresh_id(services: Services, provider: ReplicateEmulator) -> None:
    """No metadata, no user, no job id, no token; the secret goes to the provider's API alone."""
    job = await ended(services, await sent(services, marked(ImageKind.JPEG)))

    assert job.state is JobState.SUCCEEDED
    (given,) = [json.loads(request.body)["input"]["image"] for request in provider.requests("order")]
    # As it is read over there: in the base64 of a data URI no marker would be seen.
    picture = base64.b64decode(given.removeprefix("data:image/jpeg;base64,"), validate=True)
    assert picture.startswith(b"\xff\xd8")
    assert b"LETHE-MARKER" in marked(ImageKind.JPEG)
    seen = provider.bytes_seen + picture
    for forbidden in (job.user_id, str(job.id), job.id.hex, str(job.public_id), job.public_id.hex, "LETHE-MARKER"):
        assert forbidden.encode() not in seen
    assert all("authorization" not in request.headers for request in provider.requests("output"))
    assert provider.requests("output"), "the output was fetched"


@pytest.mark.parametrize(
    ("fault", "state", "code", "orders", "copies"),
    [
        ("rate_limited", JobState.SUCCEEDED, "", 2, {"expires_by"}),
        ("overloaded", JobState.SUCCEEDED, "", 2, {"expires_by"}),
        ("server_error", JobState.SUCCEEDED, "", 2, {"expires_by"}),
        ("auth", JobState.FAILED, "provider_refused", 1, {"expires_by"}),
        ("payment", JobState.FAILED, "provider_refused", 1, {"expires_by"}),
        ("invalid", JobState.FAILED, "invalid_image", 1, {"expires_by"}),
        ("moderated", JobState.FAILED, "content_rejected", 1, {"expires_by"}),
        ("lost_order", JobState.FAILED, "provider_uncertain", 1, {"unknown"}),
        ("malformed_order", JobState.FAILED, "provider_uncertain", 1, {"unknown"}),
        ("malformed_poll", JobState.SUCCEEDED, "", 1, {"expires_by"}),
        ("unknown_state", JobState.SUCCEEDED, "", 1, {"expires_by"}),
        ("canceled_there", JobState.FAILED, "provider_canceled", 1, {"expires_by"}),
        ("forgotten", JobState.SUCCEEDED, "", 2, {"expires_by"}),
    ],
)
async def test_a_fault_has_its_outcome_its_orders_and_its_words(
    services: Services,
    provider: ReplicateEmulator,
    *,
    fault: str,
    state: JobState,
    code: str,
    orders: int,
    copies: set[str],
) -> None:
    """Whatever the provider does: one outcome, a charge only for a success, as many orders as allowed, honest words."""
    assert script(provider, fault)

    job = await ended(services, await sent(services))

    assert (job.state, job.code) == (state, code)
    assert job.charged is (state is JobState.SUCCEEDED)
    assert len(provider.requests("order")) == orders
    assert len(await attempts(services, job)) == orders
    assert set((await words(services, job)).values()) == copies
    assert (await receipt(services, job)).outcome == state


async def test_the_policies_are_asked_again_before_a_picture_leaves(
    services: Services, provider: ReplicateEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever chose the provider has asked before; what opens the picture asks for itself, and sends nothing."""
    chosen = await sent(services)

    monkeypatch.setattr(Policies, "disclose", refuse_real_operations)
    job = await ended(services, chosen)

    assert (job.state, job.code) == (JobState.FAILED, "refused")
    assert not provider.requests("order")
    assert not provider.requests("upload")
    assert await words(services, job) == {}


def refuse_real_operations(self: Policies, facts: Facts, terms: ProviderTerms) -> Refuse | None:
    """Routing asks without naming an operation, and gets its way."""
    return Refuse(code=RefusalCode.REFUSED, reason="not any more") if facts.operation else None

"""What is said of a copy that a provider had: never more than its own answer, or its documented terms."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.attempts import PURGE_FOR_S, Attempt, AttemptState, Disposition, by_terms, dispose
from broker.custody import PROVIDER_EVIDENCE, Evidence
from providers.base import Deletes, Exposure, Handle, Part, Purge
from providers.failures import FailureKind

AT = datetime(2026, 11, 1, tzinfo=UTC)
HANDLE = Handle(id="p1", operation="upscale")
ORDERED = Handle(id="p1", operation="upscale", uploads=("f1",))
ONLY_UPLOADED = Handle(id="", operation="upscale", uploads=("f1",))
ALL = frozenset(Part)
PLAIN = Attempt(
    id=UUID(int=1),
    job_id=UUID(int=2),
    provider="acme",
    is_outside=True,
    exposure=Exposure.LOGGED,
    retention_s=3600,
    deletes=Deletes.API,
    state=AttemptState.SUCCEEDED,
    kind=None,
    after_s=None,
    handle=HANDLE,
    cost_usd=0.0,
    is_estimate=True,
    started_at=AT,
    ended_at=AT,
)


def attempt(**changed: object) -> Attempt:
    return msgspec.structs.replace(PLAIN, **changed)


def running(**changed: object) -> Attempt:
    return attempt(**{"state": AttemptState.WAITING, "ended_at": None, **changed})


def said(one: Attempt, purge: Purge | None, part: Part = Part.OUTPUT) -> Evidence:
    return dispose(one, part, purge).evidence


@pytest.mark.parametrize("part", Part)
def test_what_the_provider_says_that_it_deleted_is_deleted_by_api(part: Part) -> None:
    """Its answer is repeated for the parts that it named, and for no other."""
    for other in Part:
        purge = Purge(deleted=frozenset({other}))
        word = said(attempt(), purge, part)
        assert word is (Evidence.DELETED_BY_API if other is part else Evidence.EXPIRES_BY)


@pytest.mark.parametrize("part", Part)
def test_what_is_still_served_is_unknown(part: Part) -> None:
    """A provider that said that it deleted, and was seen to serve the part all the same, is believed in nothing."""
    assert said(attempt(), Purge(deleted=ALL, still_served=frozenset({part})), part) is Evidence.UNKNOWN
    assert said(attempt(), Purge(still_served=frozenset({part})), part) is Evidence.UNKNOWN


@pytest.mark.parametrize(
    ("deletes", "retention_s", "word"),
    [
        (Deletes.NONE, 0, Evidence.EXPIRES_BY),
        (Deletes.NONE, 3600, Evidence.KEPT_BY_TERMS),
        (Deletes.TTL, 3600, Evidence.EXPIRES_BY),
        (Deletes.API, 3600, Evidence.EXPIRES_BY),
    ],
)
def test_what_nobody_deleted_is_as_the_terms_say(deletes: Deletes, retention_s: int, word: Evidence) -> None:
    """A provider that keeps what it gets keeps it by its terms; others by their documented time, counted from now."""
    one = attempt(deletes=deletes, retention_s=retention_s)
    assert by_terms(one) == Disposition(evidence=word, until_s=float(retention_s))
    assert dispose(one, Part.RECORD, Purge()) == by_terms(one)


@pytest.mark.parametrize(
    ("one", "is_asked"),
    [
        (attempt(deletes=Deletes.API), True),
        (attempt(deletes=Deletes.TTL), False),
        (attempt(deletes=Deletes.NONE), False),
        (attempt(deletes=Deletes.TTL, handle=ORDERED), True),
        (attempt(deletes=Deletes.NONE, handle=ONLY_UPLOADED), True),
        (running(deletes=Deletes.NONE), True),
        (running(deletes=Deletes.NONE, handle=None), False),
        (attempt(deletes=Deletes.API, handle=None), False),
    ],
)
def test_who_is_asked(one: Attempt, is_asked: bool) -> None:
    """What still runs, what was uploaded and what an API deletes; without a handle there is nothing to ask about."""
    assert one.needs_asking is is_asked
    expected = Evidence.PURGE_PENDING if is_asked else {Evidence.EXPIRES_BY, Evidence.KEPT_BY_TERMS, Evidence.UNKNOWN}
    assert said(one, None) in expected if isinstance(expected, set) else said(one, None) is expected


def test_silence_is_pending_for_a_day() -> None:
    """A provider that does not answer is asked again until its time is up; after that nothing is known."""
    assert dispose(attempt(), Part.OUTPUT, None) == Disposition(evidence=Evidence.PURGE_PENDING, until_s=PURGE_FOR_S)
    assert dispose(attempt(is_late=True), Part.OUTPUT, None) == Disposition(evidence=Evidence.UNKNOWN)
    assert PURGE_FOR_S == 24 * 3600


@pytest.mark.parametrize(
    "one",
    [
        running(handle=None, state=AttemptState.SUBMITTING),
        running(handle=ONLY_UPLOADED, state=AttemptState.SUBMITTING),
        attempt(handle=None, state=AttemptState.FAILED, kind=FailureKind.UNCERTAIN),
        attempt(handle=ONLY_UPLOADED, state=AttemptState.FAILED, kind=FailureKind.UNCERTAIN),
        attempt(handle=ONLY_UPLOADED, state=AttemptState.FAILED, kind=FailureKind.CANCELED),
    ],
)
@pytest.mark.parametrize("deletes", Deletes)
def test_an_order_without_a_trace_is_unknown(one: Attempt, deletes: Deletes) -> None:
    """
    It may have arrived, and nobody could ask about it: no documented time is stated, as nobody knows since when.

    That stays so once settle has written `canceled` over it; what was uploaded before can be deleted all the same.
    """
    one = msgspec.structs.replace(one, deletes=deletes)
    assert one.is_untraceable
    assert said(one, Purge(deleted=frozenset({Part.UPLOAD}))) is Evidence.UNKNOWN
    assert said(one, Purge(deleted=frozenset({Part.UPLOAD})), Part.UPLOAD) is Evidence.DELETED_BY_API
    assert said(one, None) in {Evidence.UNKNOWN, Evidence.PURGE_PENDING}


@pytest.mark.parametrize("kind", [None, *FailureKind])
def test_an_order_with_an_id_is_never_without_a_trace(kind: FailureKind | None) -> None:
    """Whatever became of it, it can be asked about."""
    assert not attempt(kind=kind).is_untraceable


def test_an_answered_order_needs_no_id() -> None:
    """A provider that answers with the picture gives no id: what it keeps is what it documents."""
    for kind in (None, FailureKind.CONTENT_REJECTED, FailureKind.RATE_LIMITED):
        one = attempt(handle=None, kind=kind, deletes=Deletes.NONE)
        assert said(one, None) is Evidence.KEPT_BY_TERMS


PARTS = st.frozensets(st.sampled_from(Part))
PURGES = st.none() | st.builds(Purge, deleted=PARTS, still_served=PARTS)
ATTEMPTS = st.builds(
    attempt,
    deletes=st.sampled_from(Deletes),
    retention_s=st.sampled_from([0, 60, 3600]),
    kind=st.none() | st.sampled_from(FailureKind),
    handle=st.sampled_from([None, HANDLE, ORDERED, ONLY_UPLOADED]),
    ended_at=st.sampled_from([None, AT]),
    is_late=st.booleans(),
)


@given(one=ATTEMPTS, part=st.sampled_from(Part), purge=PURGES)
def test_no_word_says_more_than_is_known(one: Attempt, part: Part, purge: Purge | None) -> None:
    """For every combination: each word has its ground, and its time where it names one."""
    stated = dispose(one, part, purge)
    deleted = purge is not None and part in purge.deleted
    served = purge is not None and part in purge.still_served
    can_be_asked = purge is None and one.needs_asking and not one.is_late
    assert stated.evidence in PROVIDER_EVIDENCE
    assert (stated.evidence is Evidence.DELETED_BY_API) == (deleted and not served)
    assert (stated.evidence is Evidence.PURGE_PENDING) == can_be_asked
    if stated.evidence in {Evidence.EXPIRES_BY, Evidence.KEPT_BY_TERMS}:
        assert stated.until_s == one.retention_s
        assert not served
        assert not one.is_untraceable
        assert purge is not None or not one.needs_asking
        keeps = one.deletes is Deletes.NONE and one.retention_s > 0
        assert (stated.evidence is Evidence.KEPT_BY_TERMS) == keeps
    if served or (one.is_untraceable and not deleted and not can_be_asked):
        assert stated == Disposition(evidence=Evidence.UNKNOWN)
    assert (stated.until_s is None) == (stated.evidence in {Evidence.DELETED_BY_API, Evidence.UNKNOWN})

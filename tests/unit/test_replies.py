"""What the answers of providers mean where an adapter does not know better."""

import msgspec
import pytest

from providers.calls import KINDS, OF_ORDER, Reply, decoded, kind_of, refused
from providers.failures import FailureKind, ProviderFailure


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an answer that is needed."""

    id: str


def reply(body: bytes = b"", *, status: int = 200) -> Reply:
    return Reply(status=status, headers={}, body=body)


UNREADABLE = [b"", b'{"id": ', b'{"id": 7}', b"{}", b"<html>", b'{"id": "\xff"}', b"[" * 200_000, b"null"]


@pytest.mark.parametrize("body", UNREADABLE)
def test_an_order_whose_answer_cannot_be_read_is_uncertain(body: bytes) -> None:
    """It was taken, under an id that nobody knows; a poll that cannot be read says nothing of the order."""
    with pytest.raises(ProviderFailure) as caught:
        decoded(reply(body), Order, is_order=True)
    assert (caught.value.kind, caught.value.is_unanswered) == (FailureKind.UNCERTAIN, False)
    with pytest.raises(ProviderFailure) as caught:
        decoded(reply(body), Order)
    assert (caught.value.kind, caught.value.is_unanswered) == (FailureKind.PROVIDER_ERROR, True)
    assert str(caught.value) == "provider_error: unreadable_answer"


def test_what_is_not_asked_for_is_passed_over() -> None:
    """Providers add fields; only what is needed has to be there."""
    assert decoded(reply(b'{"id": "p1", "new": [1]}'), Order, is_order=True) == Order(id="p1")


def test_an_error_page_that_is_no_json_is_none() -> None:
    """Errors are looked into, and need not be readable."""
    assert reply(b"<html>").json() is None
    assert reply(b"[" * 200_000).json() is None
    assert reply(b'{"detail": "no"}').json() == {"detail": "no"}


def test_every_status_has_a_kind() -> None:
    """What nobody expects of an API is the provider's error, or nothing that this provider can do."""
    others = {status: kind_of(status) for status in range(200, 600) if status not in KINDS}
    assert {status for status, kind in others.items() if kind is FailureKind.UNSUPPORTED} == {
        status for status in others if 400 <= status < 500
    }
    assert set(others.values()) == {FailureKind.UNSUPPORTED, FailureKind.PROVIDER_ERROR}
    assert all(kind_of(status) is kind for status, kind in KINDS.items())


def test_a_server_error_is_no_word_about_the_order() -> None:
    """A poll that meets a broken gateway is asked again; a status that says something of the order is believed."""
    assert refused(reply(status=502)).is_unanswered
    assert refused(reply(status=503)).is_unanswered
    assert not refused(reply(status=404)).is_unanswered
    assert not refused(reply(status=500), FailureKind.CONTENT_REJECTED).is_unanswered


@pytest.mark.parametrize("status", [302, 303, 405, 408, 409, 421, 423])
def test_a_question_that_was_not_taken_is_no_word_about_the_order(status: int) -> None:
    """Sent elsewhere, too late, in conflict or locked: that was the question, and the order runs on."""
    assert refused(reply(status=status)).is_unanswered


@pytest.mark.parametrize("status", [400, 404, 410, 422])
def test_what_speaks_of_the_order_is_believed(status: int) -> None:
    """It is not there, or was refused; asked about something else than an order, nothing is believed."""
    assert not refused(reply(status=status)).is_unanswered
    assert refused(reply(status=status), believed=()).is_unanswered


def test_a_kind_that_is_known_is_believed_as_far_as_the_adapter_says() -> None:
    """In a provider's own words a question may be turned away, too."""
    assert not refused(reply(status=503), FailureKind.OVERLOADED).is_unanswered
    assert refused(reply(status=503), FailureKind.OVERLOADED, believed=OF_ORDER).is_unanswered
    assert not refused(reply(status=503), FailureKind.CONTENT_REJECTED, believed=OF_ORDER).is_unanswered


def test_a_refusal_names_its_status_and_nothing_of_its_body() -> None:
    """What a provider writes may repeat what a user typed."""
    failure = refused(reply(b'{"detail": "a canary"}', status=422))
    assert str(failure) == "invalid_input: status_422"
    assert str(refused(reply(status=400), FailureKind.PAYMENT, detail="no_credit")) == "payment: no_credit"

"""Where somebody is told is read in one way only, and tries have an end."""

from itertools import accumulate

import pytest

from broker.notifications import MAX_AGE_S, Channel, Kind, read_push, read_webhook
from broker.notify_errors import InvalidPushToken, InvalidWebhook
from tests.telling import notification


def waits(channel: Channel) -> list[float]:
    found: list[float] = []
    while (wait_s := notification(channel, tries=len(found) + 1).again_s) is not None:
        found.append(wait_s)
    return found


def test_a_webhook_is_tried_ten_times() -> None:
    """As the specification recommends: at once, after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h."""
    assert waits(Channel.WEBHOOK) == [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]


def test_a_push_is_tried_for_minutes() -> None:
    """Later it tells nobody anything."""
    assert sum(waits(Channel.FCM)) < 3_600


@pytest.mark.parametrize("channel", Channel)
def test_the_last_try_comes_before_the_end_of_its_row(channel: Channel) -> None:
    """No try is planned that the sweep would forestall, with half a day for the job itself."""
    assert list(accumulate(waits(channel)))[-1] < MAX_AGE_S - 43_200


def test_times_are_whole_seconds() -> None:
    """As everywhere in the API."""
    assert notification().happened_at == "2026-11-26T12:00:00Z"


def test_a_token_names_its_service() -> None:
    """One word, a colon, the token as the service gave it."""
    target = read_push("fcm:dQw4:APA91bH-x_y.z", pointer="#/notify_push")
    assert (target.channel, target.address, target.channel.kind) == (Channel.FCM, "dQw4:APA91bH-x_y.z", Kind.PUSH)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fcm",
        "fcm:",
        ":x",
        "webhook:x",
        "mail:x",
        "fcm:a b",
        "fcm:é",
        "fcm:" + "x" * 1_025,
        "apns:xyz",
        "apns:" + "A1" * 32,
    ],
)
def test_what_is_no_push_token_is_refused(text: str) -> None:
    """422 with a pointer to where it stood."""
    with pytest.raises(InvalidPushToken) as caught:
        read_push(text, pointer="#/notify_push")
    assert caught.value.pointer == "#/notify_push"


@pytest.mark.parametrize("text", ["", "https://a b", "https://a/\n", "https://é", "https://a/" + "x" * 2_000])
def test_what_is_no_url_is_refused(text: str) -> None:
    """Before any URL library sees it."""
    with pytest.raises(InvalidWebhook) as caught:
        read_webhook(text, pointer="#/notify_webhook")
    assert caught.value.pointer == "#/notify_webhook"


def test_no_address_is_shown() -> None:
    """What is logged, or stands in a traceback, tells nobody where a user is."""
    target = read_push("fcm:secret-token", pointer="")
    assert "secret-token" not in repr(target)
    assert "app.example" not in repr(notification())

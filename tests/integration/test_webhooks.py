"""A webhook is signed, thin, sent to the address that was checked, and never into our network."""

import asyncio
from collections.abc import AsyncGenerator

import msgspec
import pytest

from broker.notifications import Answer, Target, Told, read_webhook
from broker.notify.webhook_keys import WebhookKeys
from broker.notify.webhooks import Webhooks
from broker.notify_errors import InvalidWebhook
from providers.pinned import Resolve
from tests.delivery import OTHER, PUBLIC, PUBLIC_V6, answers
from tests.emulators import base
from tests.telling import HOOK, World, notification, world

PRIVATE = [
    *("127.0.0.1", "10.0.0.5", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.100.100.200"),
    *("::1", "::ffff:10.0.0.5", "fe80::1%lo", "fd00::1", "64:ff9b::a00:5", "2002:a00:5::", f"{PUBLIC} 10.0.0.5"),
]


@pytest.fixture
async def outside() -> AsyncGenerator[World]:
    async with world() as there:
        yield there


def sender(outside: World, *turns: str) -> Webhooks:
    """A sender for which names lead there, one answer after the other."""
    return sender_by(outside, answers(*turns)[0])


def sender_by(outside: World, resolve: Resolve) -> Webhooks:
    return Webhooks(WebhookKeys(outside.keys), resolve=resolve, transport=outside.internet)


def target(url: str) -> Target:
    return read_webhook(url, pointer="#/notify_webhook")


async def told(outside: World, *scripted: base.Scripted, of: Webhooks | None = None) -> Answer:
    outside.receiver.next("hook", *scripted)
    return await (of or sender(outside, PUBLIC)).send(notification())


async def test_a_receiver_verifies_both_signatures(outside: World) -> None:
    """HMAC and Ed25519 over id, time and body; the body says which job and how it ended, and no more."""
    sent = notification()
    answer = await sender(outside, PUBLIC).send(sent)
    assert answer == Answer(told=Told.DELIVERED)
    assert outside.receiver.events == {
        str(sent.id): {
            "type": "job.succeeded",
            "timestamp": "2026-11-26T12:00:00Z",
            "data": {"id": str(sent.public_id)},
        }
    }
    seen = outside.receiver.requests("hook")[0]
    assert set(seen.headers) == {
        *("host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length"),
        *("webhook-id", "webhook-timestamp", "webhook-signature"),
    }
    assert seen.headers["host"] == "app.example"


async def test_a_changed_body_is_not_believed(outside: World) -> None:
    """The receiver is one that looks: what was changed on the way, or is old, is refused there."""
    await told(outside)
    seen = outside.receiver.requests("hook")[0]
    changed = msgspec.structs.replace(seen, body=seen.body.replace(b"succeeded", b"failed"))
    old = msgspec.structs.replace(seen, headers={**seen.headers, "webhook-timestamp": "1614265330"})
    assert [outside.receiver.is_signed(one) for one in (seen, changed, old)] == [True, False, False]


async def test_a_second_try_has_the_same_id_and_a_new_time(outside: World) -> None:
    """A receiver that was told already knows it by the id."""
    sent, now = notification(), [1_000.0]
    webhooks = Webhooks(
        WebhookKeys(outside.keys), resolve=answers(PUBLIC)[0], transport=outside.internet, now=lambda: now[0]
    )
    for now[0] in (1_000.0, 2_000.0):
        outside.receiver.next("hook", base.broken(500))
        assert (await webhooks.send(sent)).told is Told.FAILED
    first, second = (seen.headers for seen in outside.receiver.requests("hook"))
    assert first["webhook-id"] == second["webhook-id"] == str(sent.id)
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("1000", "2000")
    assert first["webhook-signature"] != second["webhook-signature"]


@pytest.mark.parametrize("found", PRIVATE)
async def test_a_private_address_is_refused_when_it_is_given(outside: World, found: str) -> None:
    """One private address among those of a name condemns it; the error points to where the client said it."""
    with pytest.raises(InvalidWebhook) as caught:
        await sender(outside, found).check(target(HOOK))
    assert caught.value.pointer == "#/notify_webhook"
    assert outside.internet.reached == []


@pytest.mark.parametrize("found", PRIVATE)
async def test_a_private_address_is_refused_when_the_name_leads_there_later(outside: World, found: str) -> None:
    """A name that was public when it was given, and is not when its time comes: no connection is made."""
    webhooks = sender(outside, PUBLIC, found)
    await webhooks.check(target(HOOK))
    assert (await webhooks.send(notification())).told is Told.REFUSED
    assert outside.internet.reached == []


async def test_the_address_that_was_checked_is_the_one_that_is_called(outside: World) -> None:
    """Resolved once for each try; a second answer leads nowhere. The certificate is that of the name."""
    resolve, asked = answers(PUBLIC, "127.0.0.1")
    assert (await sender_by(outside, resolve).send(notification())).told is Told.DELIVERED
    assert (asked, outside.internet.reached, outside.internet.names) == (["app.example"], [PUBLIC], ["app.example"])


@pytest.mark.parametrize(
    "url",
    [
        *("http://app.example/", "ftp://app.example/", "//app.example/", "app.example/hook", "https://", "https:///x"),
        *("https://app.example:8443/", "https://app.example:22/", "https://app.example:80/", "https://a:port/"),
        *("https://user@app.example/", "https://u:p@app.example/", "https://app.example/#x", "https://[app.example/"),
    ],
)
async def test_what_is_no_webhook_is_not_even_resolved(outside: World, url: str) -> None:
    """Only https on its own port, to a host, without a name or password in it."""
    resolve, asked = answers(PUBLIC)
    with pytest.raises(InvalidWebhook):
        await sender_by(outside, resolve).check(target(url))
    assert asked == []


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "https://[::1]/", "https://localhost/", "https://2130706433/", "https://0x7f.1/"]
)
async def test_the_machine_itself_is_refused_in_every_spelling(url: str) -> None:
    """By the system's own resolver."""
    webhooks = Webhooks(WebhookKeys(["whsec_" + "A" * 32]))
    with pytest.raises(InvalidWebhook):
        await webhooks.check(target(url))
    await webhooks.aclose()


async def test_a_name_without_an_address_is_refused_when_it_is_given_and_tried_again_later(outside: World) -> None:
    """Who gives it can mend it; later it may be the resolver's trouble."""

    async def broken(host: str, port: int) -> list[str]:
        raise OSError

    for resolve in (broken, answers("")[0]):
        with pytest.raises(InvalidWebhook, match="no address"):
            await sender_by(outside, resolve).check(target(HOOK))
        assert (await sender_by(outside, resolve).send(notification())).told is Told.FAILED


async def test_a_resolver_that_hangs_holds_up_nobody_for_long(outside: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The submission is answered within seconds."""
    monkeypatch.setattr("broker.notify.webhooks.CHECK_WITHIN_S", 0.05)

    async def hangs(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(InvalidWebhook):
        await sender_by(outside, hangs).check(target(HOOK))


async def test_no_redirect_is_followed(outside: World) -> None:
    """Wherever it leads: it is a failure, and nothing else is called."""
    moved = base.Scripted(answer=base.Answer(status=302, headers={"location": "https://169.254.169.254/"}))
    assert (await told(outside, moved)).told is Told.FAILED
    assert outside.internet.reached == [PUBLIC]


@pytest.mark.parametrize(
    ("scripted", "expected"),
    [
        (base.Scripted(answer=base.Answer(status=200)), Answer(told=Told.DELIVERED)),
        (base.Scripted(answer=base.Answer(status=410)), Answer(told=Told.GONE)),
        (base.Scripted(answer=base.Answer(status=404)), Answer(told=Told.FAILED)),
        (base.broken(500), Answer(told=Told.FAILED)),
        (base.limited(7), Answer(told=Told.FAILED, after_s=7.0)),
        (base.limited(999_999), Answer(told=Told.FAILED, after_s=3_600.0)),
        (base.LOST, Answer(told=Told.FAILED)),
    ],
)
async def test_an_answer_is_read_by_its_status(outside: World, scripted: base.Scripted, expected: Answer) -> None:
    """2xx is done, 410 ends it, the rest is tried again; nobody makes us wait for more than an hour."""
    assert await told(outside, scripted) == expected


async def test_the_next_address_is_tried_where_one_is_dead(outside: World) -> None:
    """In the resolver's order; none that answers is a failure."""
    assert (await told(outside, of=sender(outside, f"{OTHER} {PUBLIC_V6} {PUBLIC}"))).told is Told.DELIVERED
    assert (await told(outside, of=sender(outside, OTHER))).told is Told.FAILED
    assert outside.internet.reached == [OTHER, PUBLIC_V6, PUBLIC, OTHER]


async def test_a_receiver_that_hangs_is_left(outside: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A try has an end."""
    monkeypatch.setattr("broker.notify.webhooks.SEND_WITHIN_S", 0.1)
    outside.receiver.latency_s = 5.0
    assert (await told(outside)).told is Told.FAILED

"""Push through Firebase: an account that is verified by code of others, one message to one phone, tokens that end."""

import time
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.google_account import Account, load_account
from broker.log import capture_log
from broker.notifications import Answer, Channel, Told
from broker.notify.fcm import Fcm, load_fcm
from broker.settings import SettingsInvalid
from tests.emulators import base
from tests.telling import World, notification, world

PHONE = "dQw4w9WgXcQ:APA91bH-kingfisher"


@pytest.fixture
async def outside() -> AsyncGenerator[World]:
    async with world() as there:
        yield there


async def told(outside: World, *scripted: base.Scripted, token: str = PHONE) -> Answer:
    outside.fcm.next("send", *scripted)
    return await outside.senders.send(notification(Channel.FCM, target=token))


async def test_a_phone_is_told_the_job_and_how_it_ended(outside: World) -> None:
    """xpictures-6: a message that Google's own schema takes, with an id and a type, and not a word for a screen."""
    sent = notification(Channel.FCM, target=PHONE)
    assert await outside.senders.send(sent) == Answer(told=Told.DELIVERED)
    (message,) = outside.fcm.messages
    assert message.token == PHONE
    assert message.data == {"job": str(sent.public_id), "type": "job.succeeded"}
    assert message.notification == {}
    assert message.apns is not None
    assert message.apns.payload == {"aps": {"content-available": 1}}


async def test_an_access_token_serves_until_it_ends(outside: World) -> None:
    """Asked for once, and again shortly before its hour is over."""
    now = [time.time()]
    account = msgspec.json.decode(outside.fcm.account, type=Account)
    fcm = Fcm(account, url=outside.fcm.url, now=lambda: now[0])
    for _ in range(3):
        assert (await fcm.send(notification(Channel.FCM, target=PHONE))).told is Told.DELIVERED
    assert len(outside.fcm.requests("token")) == 1
    now[0] += 3_400
    outside.fcm.next("token", base.broken(500))
    assert (await fcm.send(notification(Channel.FCM, target=PHONE))).told is Told.FAILED
    await fcm.aclose()


async def test_a_refused_access_token_is_asked_for_anew(outside: World) -> None:
    """This try has failed; the next has a fresh one. The operator hears of it."""
    assert (await told(outside)).told is Told.DELIVERED
    outside.fcm.expire()
    with capture_log() as lines:
        assert (await told(outside)).told is Told.FAILED
    assert any("google_account_refused" in line for line in lines)
    assert (await told(outside)).told is Told.DELIVERED
    assert len(outside.fcm.requests("token")) == 2


async def test_a_phone_without_the_app_is_gone(outside: World) -> None:
    """404 UNREGISTERED: there is nobody to be told."""
    outside.fcm.gone.add(PHONE)
    assert (await told(outside)).told is Told.GONE


@pytest.mark.parametrize(
    ("scripted", "expected"),
    [
        (base.broken(400), Answer(told=Told.REFUSED)),
        (base.broken(500), Answer(told=Told.FAILED)),
        (base.limited(9), Answer(told=Told.FAILED, after_s=9.0)),
        (base.LOST, Answer(told=Told.FAILED)),
        (base.Scripted(answer=base.Answer(status=302, headers={"location": "/elsewhere"})), Answer(told=Told.FAILED)),
    ],
)
async def test_an_answer_is_read_by_its_status(outside: World, scripted: base.Scripted, expected: Answer) -> None:
    """What will never be taken ends it, what may pass is tried again."""
    assert await told(outside, scripted) == expected


@pytest.mark.parametrize("scripted", [base.MALFORMED, base.LOST, base.broken(400)])
async def test_without_an_access_token_nothing_is_sent(outside: World, scripted: base.Scripted) -> None:
    """Whatever Google answers instead of one."""
    outside.fcm.next("token", scripted)
    assert (await told(outside)).told is Told.FAILED
    assert outside.fcm.requests("send") == []


def test_an_account_that_is_none_is_refused(tmp_path: Path) -> None:
    """No file, no JSON, no key, a key of another kind: named by the setting, and not shown."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    named = {"project_id": "p", "private_key_id": "k", "client_email": "e", "token_uri": "https://t.example"}
    contents = [b"", b"[]", b"{}", *(msgspec.json.encode({**named, "private_key": key}) for key in ("x", pem))]
    for content in contents:
        file = tmp_path / "account.json"
        file.write_bytes(content)
        with pytest.raises(SettingsInvalid, match="LETHE_FCM_ACCOUNT_FILE") as caught:
            load_account(file, setting="LETHE_FCM_ACCOUNT_FILE")
        assert pem not in str(caught.value)
    with pytest.raises(SettingsInvalid, match="LETHE_FCM_ACCOUNT_FILE"):
        load_account(tmp_path / "none", setting="LETHE_FCM_ACCOUNT_FILE")


async def test_an_account_as_google_gives_it_out_is_read(tmp_path: Path, outside: World) -> None:
    """With members that we have no use for."""
    file = tmp_path / "account.json"
    file.write_bytes(outside.fcm.account)
    assert load_account(file, setting="LETHE_FCM_ACCOUNT_FILE").project_id == "studio-app"
    assert "BEGIN" not in repr(load_account(file, setting="LETHE_FCM_ACCOUNT_FILE"))


@pytest.mark.parametrize("url", ["", "fcm.example", "http://fcm.example", "ftp://127.0.0.1", "https://", "https://["])
def test_tokens_go_to_no_address_where_others_read_them(tmp_path: Path, outside: World, url: str) -> None:
    """Plain HTTP leads to this machine alone."""
    file = tmp_path / "account.json"
    file.write_bytes(outside.fcm.account)
    with pytest.raises(SettingsInvalid, match="LETHE_FCM_URL"):
        load_fcm(file, url)


@pytest.mark.parametrize("url", ["https://gateway.example/fcm/", "http://127.0.0.1:9/"])
async def test_firebase_is_reached_at_another_address(tmp_path: Path, outside: World, url: str) -> None:
    """Through a gateway, or on this machine."""
    file = tmp_path / "account.json"
    file.write_bytes(outside.fcm.account)
    await load_fcm(file, url).aclose()

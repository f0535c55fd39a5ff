"""Push through Apple: HTTP/2, a provider token that is verified by code of others, one notification to one device."""

import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker import notifier as notifier_module
from broker import services as services_module
from broker.log import capture_log
from broker.notifications import Answer, Channel, Told, read_push
from broker.notify.apns import Apns, load_apns_key
from broker.notify.senders import Senders
from broker.settings import Settings, SettingsInvalid
from tests.checks import plant
from tests.emulators import base
from tests.emulators.apns import BUNDLE, KEY_ID, TEAM, ApnsEmulator, running
from tests.lifecycle import settled
from tests.stack import body_of, pretend_worker, running_services, submission, upload_bytes
from tests.telling import notification

PHONE = "0a1b" * 16
APP_ID = f"{TEAM}.{BUNDLE}"


class Apple(NamedTuple):
    """The service, and a sender whose clock the tests turn."""

    service: ApnsEmulator
    sender: Apns
    now: list[float]

    async def told(self, *scripted: base.Scripted) -> Answer:
        self.service.next("push", *scripted)
        return await self.sender.send(notification(Channel.APNS, target=PHONE))


@pytest.fixture
async def apple(tmp_path: Path) -> AsyncGenerator[Apple]:
    service, now = ApnsEmulator(), [time.time()]
    async with running(service):
        file = tmp_path / f"AuthKey_{KEY_ID}.p8"
        file.write_bytes(service.pem)
        sender = Apns(load_apns_key(file, APP_ID), url=service.url, now=lambda: now[0], timeout_s=2.0)
        yield Apple(service, sender, now)
        await sender.aclose()


async def test_an_iphone_is_told_the_job_and_how_it_ended(apple: Apple) -> None:
    """xpictures-6: a background push with an id and a type, and not a word for a screen."""
    sent = notification(Channel.APNS, target=PHONE)
    assert await apple.sender.send(sent) == Answer(told=Told.DELIVERED)
    expected = {"aps": {"content-available": 1}, "job": str(sent.public_id), "type": "job.succeeded"}
    assert apple.service.pushed == [(PHONE, expected)]
    (seen,) = apple.service.seen
    assert seen.headers["apns-id"] == str(sent.id)
    assert 3_590 < int(seen.headers["apns-expiration"]) - time.time() < 3_610


async def test_a_provider_token_serves_for_forty_minutes(apple: Apple) -> None:
    """Neither older than Apple takes, nor made more often than Apple likes."""
    apple.now[0] -= 3_100  # no token is of the future
    for turn_s in (0, 2_000, 0, 1_000):
        apple.now[0] += turn_s
        assert (await apple.told()).told is Told.DELIVERED
    assert len(apple.service.tokens) == 2


async def test_a_refused_key_is_said(apple: Apple) -> None:
    """403: the operator hears of it, and it is tried again."""
    with capture_log() as lines:
        assert (await apple.told(base.broken(403))).told is Told.FAILED
    assert any("push_account_refused" in line for line in lines)


async def test_a_phone_without_the_app_is_gone(apple: Apple) -> None:
    """410 Unregistered: there is nobody to be told."""
    apple.service.gone.add(PHONE)
    assert (await apple.told()).told is Told.GONE


@pytest.mark.parametrize(
    ("scripted", "expected"),
    [
        (base.broken(400), Answer(told=Told.REFUSED)),
        (base.broken(500), Answer(told=Told.FAILED)),
        (base.limited(9), Answer(told=Told.FAILED, after_s=9.0)),
        (base.LOST, Answer(told=Told.FAILED)),
    ],
)
async def test_an_answer_is_read_by_its_status(apple: Apple, scripted: base.Scripted, expected: Answer) -> None:
    """What will never be taken ends it, what may pass is tried again."""
    assert await apple.told(scripted) == expected


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    """A name that is not Apple's, no key, a key of another curve, an app's id that is none: said by the setting."""
    other = generate_private_key(SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = tmp_path / f"AuthKey_{KEY_ID}.p8"
    for content in (b"", b"x", other):
        file.write_bytes(content)
        with pytest.raises(SettingsInvalid, match="LETHE_APNS_KEY_FILE"):
            load_apns_key(file, APP_ID)
    for path, app_id, name in (
        (tmp_path / "key.p8", APP_ID, "KEY_FILE"),
        (tmp_path / "AuthKey_ZZZZZZZZZZ.p8", APP_ID, "KEY_FILE"),
        (file, BUNDLE, "APP_ID"),
        (file, "", "APP_ID"),
    ):
        with pytest.raises(SettingsInvalid, match=f"LETHE_APNS_{name}"):
            load_apns_key(path, app_id)


async def test_a_job_tells_an_iphone(settings: Settings, apple: Apple, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the submission to the phone, through the rows of a broker; nothing of the token is left."""

    def load(settings: Settings) -> Senders:
        del settings
        return Senders(apns=apple.sender)

    monkeypatch.setattr(services_module, "load_senders", load)
    monkeypatch.setattr(notifier_module, "EVERY_S", 3_600)
    token = plant(PHONE)
    async with running_services(settings) as services:
        worker = await pretend_worker(services)
        new = await submission(services, targets=(read_push(f"apns:{token}", pointer=""),))
        job, _ = await services.intake.submit(new, body_of(upload_bytes()))
        running_job = await services.stores.jobs.claim(job.id, worker)
        assert running_job is not None
        await settled(services, running_job)
        assert await services.notifier.once() == 1
    assert [(phone, told["job"]) for phone, told in apple.service.pushed] == [(PHONE, str(job.public_id))]

"""Who is told in tests: a receiver of webhooks on an Internet of their own, a push service, and what sends to them."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import uuid4

import msgspec
import pytest

from broker import notifier as notifier_module
from broker import services as services_module
from broker.google_account import Account
from broker.notifications import Channel, Notification
from broker.notifier import Notifier
from broker.notify.fcm import Fcm
from broker.notify.senders import Senders
from broker.notify.webhook_keys import WebhookKeys, new_keys
from broker.notify.webhooks import Webhooks
from broker.services import Services
from broker.settings import Settings
from providers.pinned import Resolve
from tests.delivery import PUBLIC, Internet, answers
from tests.emulators.base import running
from tests.emulators.fcm import FcmEmulator
from tests.emulators.webhooks import Receiver

HOOK = "https://app.example/hooks/lethe"


class World(NamedTuple):
    """Everybody outside, and the senders that reach them."""

    receiver: Receiver
    fcm: FcmEmulator
    internet: Internet
    senders: Senders
    keys: tuple[str, str]
    """The lines of the file of webhook keys."""


@contextlib.asynccontextmanager
async def world(resolve: Resolve | None = None) -> AsyncGenerator[World]:
    """Let them answer."""
    secret, private, public = new_keys()
    receiver, fcm = Receiver(secret=secret, public=public), FcmEmulator()
    with running(receiver), running(fcm):
        internet = Internet({PUBLIC: receiver})
        webhooks = Webhooks(WebhookKeys([secret, private]), resolve=resolve or answers(PUBLIC)[0], transport=internet)
        account = msgspec.json.decode(fcm.account, type=Account)
        senders = Senders(webhooks=webhooks, fcm=Fcm(account, url=fcm.url, timeout_s=5.0))
        try:
            yield World(receiver, fcm, internet, senders, (secret, private))
        finally:
            await senders.aclose()


@contextlib.asynccontextmanager
async def wired_world(monkeypatch: pytest.MonkeyPatch, *, every_s: float) -> AsyncGenerator[World]:
    """Let brokers that start from here on tell them, a pass each `every_s`."""
    async with world() as outside:
        monkeypatch.setattr(services_module, "load_senders", _senders_of(outside))
        monkeypatch.setattr(notifier_module, "EVERY_S", every_s)
        yield outside


def _senders_of(outside: World) -> Callable[[Settings], Senders]:
    def load(settings: Settings) -> Senders:
        del settings
        return outside.senders

    return load


def notification(channel: Channel = Channel.WEBHOOK, *, target: str = HOOK, tries: int = 1) -> Notification:
    """One that is about to be sent."""
    return Notification(
        id=uuid4(),
        job_id=uuid4(),
        channel=channel,
        target=target,
        tries=tries,
        public_id=uuid4(),
        state="succeeded",
        finalized_at=datetime(2026, 11, 26, 12, 0, 0, 900_000, tzinfo=UTC),
        user_id="usr_x",
        muted=(),
    )


def notifier_of(services: Services, senders: Senders) -> Notifier:
    """Another broker's notifier over the same stores."""
    return Notifier(services.stores, senders=senders, policies=services.policies, metrics=services.metrics)

"""What a broker can tell others by: made of the settings, and asked channel by channel."""

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from broker.notifications import Answer, Channel, Notification, Target, Told
from broker.notify.apns import Apns, load_apns_key
from broker.notify.fcm import Fcm, load_fcm
from broker.notify.webhook_keys import load_webhook_keys
from broker.notify.webhooks import Webhooks
from broker.notify_errors import NotificationUnavailable
from broker.settings import Settings

SEND_WITHIN_S: Final = 30.0


class Senders(msgspec.Struct, frozen=True, kw_only=True):
    """One sender for each channel that is configured."""

    webhooks: Webhooks | None = None
    fcm: Fcm | None = None
    apns: Apns | None = None

    @property
    def channels(self) -> list[Channel]:
        """The channels that something can be sent by."""
        return [channel for channel, sender in self._by_channel.items() if sender is not None]

    @property
    def _by_channel(self) -> dict[Channel, Webhooks | Fcm | Apns | None]:
        return {Channel.WEBHOOK: self.webhooks, Channel.FCM: self.fcm, Channel.APNS: self.apns}

    async def check(self, target: Target) -> None:
        """Raise NotificationUnavailable where nothing can be sent by this channel, InvalidWebhook where it may not."""
        if target.channel not in self.channels:
            raise NotificationUnavailable(
                f"this server sends nothing by {target.channel}; send the job without", pointer=target.pointer
            )
        if target.channel is Channel.WEBHOOK and self.webhooks is not None:
            await self.webhooks.check(target)

    async def send(self, notification: Notification) -> Answer:
        """Try once, in less time than whoever took a notification has for it."""
        sender = self._by_channel[notification.channel]
        if sender is None:
            return Answer(told=Told.FAILED)
        try:
            async with asyncio.timeout(SEND_WITHIN_S):
                return await sender.send(notification)
        except TimeoutError:
            return Answer(told=Told.FAILED)

    async def aclose(self) -> None:
        """Let go of connections."""
        for sender in self._by_channel.values():
            if sender is not None:
                await sender.aclose()


def channels_of(settings: Settings) -> tuple[Channel, ...]:
    """Say what a deployment sends by, without reading any file."""
    files = {
        Channel.WEBHOOK: settings.webhook_keys_file,
        Channel.FCM: settings.fcm_account_file,
        Channel.APNS: settings.apns_key_file,
    }
    return tuple(channel for channel, file in files.items() if file)


def load_senders(settings: Settings) -> Senders:
    """Read keys and accounts where settings name their files; raise SettingsInvalid."""
    keys, account, apns = settings.webhook_keys_file, settings.fcm_account_file, settings.apns_key_file
    return Senders(
        webhooks=Webhooks(load_webhook_keys(Path(keys))) if keys else None,
        fcm=load_fcm(Path(account), settings.fcm_url) if account else None,
        apns=Apns(load_apns_key(Path(apns), settings.apns_app_id)) if apns else None,
    )

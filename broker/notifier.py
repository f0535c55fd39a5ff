"""The use case of notifications: once a job is final somebody is told, in one try or in several, and then forgotten."""

import asyncio
import random

import structlog

from broker.errors import BrokerError
from broker.metrics import Metrics
from broker.notifications import Answer, Kind, Notification, Told
from broker.notify.senders import Senders
from broker.store.notifications import BATCH
from broker.store.stores import Stores
from policies.registry import Policies

log = structlog.get_logger()

EVERY_S = 1.0
CLAIM_S = 60.0
"""How long whoever took a notification has, before somebody else tries: longer than any try takes."""


class Notifier:
    """Sends what is due, in every broker; a try whose process dies is made again, under the same id."""

    def __init__(self, stores: Stores, *, senders: Senders, policies: Policies, metrics: Metrics) -> None:
        self._notifications = stores.notifications
        self._consents = stores.consents
        self._senders = senders
        self._consent = policies.profile.consent
        self._metrics = metrics

    async def run(self) -> None:
        """Pass after pass until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the passes
            try:
                while await self.once() == BATCH:
                    continue
            except BrokerError as exc:
                log.warning("notifications_postponed", code=exc.code)
            except Exception:
                # One that cannot be sent must not end the process, and with it all others.
                log.exception("notifier_broke")

    async def once(self) -> int:
        """Send what is due, side by side; return how many were."""
        if not self._senders.channels:
            return 0
        due = await self._notifications.due(self._senders.channels, within_s=CLAIM_S)
        await asyncio.gather(*(self._tell(notification) for notification in due))
        return len(due)

    async def _tell(self, notification: Notification) -> None:
        told = await self._told(notification)
        self._metrics.notifications.labels(channel=notification.channel, outcome=told).inc()
        log.info("notification_tried", job_id=str(notification.job_id), code=told, count=notification.tries)

    async def _told(self, notification: Notification) -> Told:
        is_off = await self._is_off(notification)
        answer = Answer(told=Told.SWITCHED_OFF) if is_off else await self._senders.send(notification)
        wait_s = notification.again_s
        if answer.told is not Told.FAILED or wait_s is None:
            await self._notifications.destroy(notification.id)
            return Told.GIVEN_UP if answer.told is Told.FAILED else answer.told
        await self._notifications.postpone(notification.id, after_s=max(wait_s, answer.after_s))
        return Told.FAILED

    async def _is_off(self, notification: Notification) -> bool:
        """Whether its user wants none, or agrees no longer to what the profile asks of push."""
        if notification.is_muted or notification.user_id is None:
            return True
        if notification.channel.kind is not Kind.PUSH or not self._consent.is_push_asked:
            return False
        return not self._consent.allows_push((await self._consents.standing(notification.user_id)).purposes)

"""The use case of notifications: once a job is final somebody is told, in one try or in several, and then forgotten."""

import asyncio
import random
from collections.abc import Awaitable

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
AT_ONCE = 100
"""So many tries of a kind at once, in one broker."""


class Notifier:
    """Sends what is due, in every broker; a try whose process dies is made again, under the same id."""

    def __init__(self, stores: Stores, *, senders: Senders, policies: Policies, metrics: Metrics) -> None:
        self._notifications = stores.notifications
        self._consents = stores.consents
        self._senders = senders
        self._consent = policies.profile.consent
        self._metrics = metrics
        self._under_way = dict.fromkeys(Kind, 0)

    async def run(self) -> None:
        """Pass after pass until cancelled; whoever answers slowly holds up neither the other kind nor the next pass."""
        async with asyncio.TaskGroup() as telling:
            while True:
                await asyncio.sleep(EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the passes
                await _quietly(self._begin(telling))

    async def once(self) -> int:
        """Send what is due, side by side, and wait for all of it; return how many were."""
        async with asyncio.TaskGroup() as telling:
            return await self._begin(telling)

    async def _begin(self, telling: asyncio.TaskGroup) -> int:
        begun = 0
        for kind in Kind:
            channels = [channel for channel in self._senders.channels if channel.kind is kind]
            while channels and (room := AT_ONCE - self._under_way[kind]) > 0:
                due = await self._notifications.due(channels, within_s=CLAIM_S, most=min(room, BATCH))
                for notification in due:
                    self._under_way[kind] += 1
                    telling.create_task(_quietly(self._tell(notification)))
                begun += len(due)
                if len(due) < BATCH:
                    break
        return begun

    async def _tell(self, notification: Notification) -> None:
        try:
            told = await self._told(notification)
        finally:
            self._under_way[notification.channel.kind] -= 1
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


async def _quietly(work: Awaitable[object]) -> None:
    try:
        await work
    except BrokerError as exc:
        log.warning("notifications_postponed", code=exc.code)
    except Exception:
        # One that cannot be sent must not end all others; it is tried again when its lease ends.
        log.exception("notifier_broke")

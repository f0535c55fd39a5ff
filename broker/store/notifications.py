"""Notifications in Postgres: taken by one process at a time, tried again, and deleted once they were sent."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from broker.errors import Unauthenticated
from broker.notifications import MAX_AGE_S, Channel, Kind, Notification, channels_for
from broker.store.database import Database
from broker.store.files import statements

SQL = statements("notifications")
BATCH = 50


class NotificationStore:
    """The rows of `notifications`, which come with the job's own, and what users have switched off."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, channels: Sequence[Channel], *, within_s: float, most: int = BATCH) -> list[Notification]:
        """Take what is to be sent now, so much at most; nobody else gets it for `within_s`."""
        rows = await self._database.rows(SQL["due"], list(channels), within_s, most)
        return [msgspec.convert(dict(row), Notification) for row in rows]

    async def postpone(self, notification_id: UUID, *, after_s: float) -> None:
        """Let it be tried again in a while."""
        await self._database.rows(SQL["postpone"], notification_id, after_s)

    async def destroy(self, notification_id: UUID) -> None:
        """Delete where it was to go."""
        await self._database.rows(SQL["destroy"], notification_id)

    async def forget(self) -> int:
        """Delete what is past its time; return how many."""
        return len(await self._database.rows(SQL["forget"], float(MAX_AGE_S)))

    async def muted(self, user_id: str) -> frozenset[Kind]:
        """Return what a user has switched off; raise Unauthenticated where the user is no more."""
        return await self._kinds("muted", user_id)

    async def mute(self, user_id: str, kinds: frozenset[Kind]) -> frozenset[Kind]:
        """Switch these off and the others on; what waits of them is destroyed. Raises Unauthenticated."""
        channels = [channel for kind in sorted(kinds) for channel in channels_for(kind)]
        return await self._kinds("mute", user_id, sorted(kinds), channels)

    async def _kinds(self, name: str, user_id: str, *values: object) -> frozenset[Kind]:
        row = await self._database.row(SQL[name], user_id, *values)
        if row is None:
            raise Unauthenticated("nobody has this token any more")
        return frozenset(Kind(kind) for kind in row["muted"])

"""Notices in Postgres: every version that was announced, with its facts; rows are only added."""

from datetime import datetime
from typing import Any

import msgspec

from broker.store.database import Database
from broker.store.files import statements

SQL = statements("notices")
DIGEST_CHARS = 8


class StoredNotice(msgspec.Struct, frozen=True, kw_only=True):
    """One version; `facts` as they were written, in the form of the release that did."""

    version: str
    digest: bytes
    facts: dict[str, Any]
    announced_at: datetime
    effective_at: datetime


class NoticeStore:
    """The rows of `notices`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def announce(
        self, digest: bytes, facts: object, *, days: int, though_in_force: bool = False
    ) -> StoredNotice | None:
        """
        Add a version that takes effect after so many days; None where it is known already.

        `though_in_force` announces also what is in force, where something else was announced since: that is taken back.
        """
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(SQL["lock"])
            name = digest.hex()[:DIGEST_CHARS]
            row = await connection.fetchrow(SQL["announce"], name, digest, facts, days, though_in_force)
        return None if row is None else msgspec.convert(dict(row), StoredNotice)

    async def shown(self) -> list[StoredNotice]:
        """Return the notice in force, and the next one where it is announced; empty before the first."""
        return [msgspec.convert(dict(row), StoredNotice) for row in await self._database.rows(SQL["shown"])]

    async def find(self, version: str) -> StoredNotice | None:
        """Return a version, whether it still holds or not."""
        row = await self._database.row(SQL["find"], version)
        return None if row is None else msgspec.convert(dict(row), StoredNotice)

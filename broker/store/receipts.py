"""Signed receipts and the keys that verify them, in Postgres."""

from datetime import datetime
from uuid import UUID

import msgspec

from broker.store.database import Database
from broker.store.files import statements

SQL = statements("receipts")


class KeyUse(msgspec.Struct, frozen=True, kw_only=True):
    """A verification key and when it was first and last taken into use."""

    vkey: str
    first_used_at: datetime
    last_used_at: datetime


class ReceiptStore:
    """The rows of `receipts` and `receipt_keys`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest(self, job_id: UUID) -> str | None:
        """Return the newest receipt of a job, a signed note."""
        row = await self._database.row(SQL["latest"], job_id)
        return None if row is None else str(row["note"])

    async def revision(self, job_id: UUID) -> int:
        """Return the number of a job's newest receipt; 0 where it has none."""
        row = await self._database.row(SQL["revision"], job_id)
        assert row is not None
        return int(row["revision"])

    async def revise(self, job_id: UUID, revision: int, note: str, provider_copies: str) -> bool:
        """Add the next receipt of a final job; False when somebody was faster."""
        return await self._database.row(SQL["revise"], job_id, revision, note, provider_copies) is not None

    async def key_used(self, vkey: str) -> None:
        """Remember that a key is in use."""
        await self._database.rows(SQL["key_used"], vkey)

    async def keys(self) -> list[KeyUse]:
        """Return every verification key, the current one first."""
        return [msgspec.convert(dict(row), KeyUse) for row in await self._database.rows(SQL["keys"])]

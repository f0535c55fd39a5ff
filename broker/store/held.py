"""
Everything that Postgres holds about one user, read piece by piece.

A table that is about users is a name in one of the two lists here, a block of that name in sql/held.sql, and a line in
its `counts`; a test fails while a table or a column is in none of them, nor withheld for a reason.
"""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from broker.store.database import Database
from broker.store.files import statements

SQL = statements("held")
OF_USER = (
    *("accounts", "credit_entries", "consents", "devices", "links", "link_tokens", "sessions", "requests"),
    *("holds", "breach_users", "audit_events"),
)
OF_JOB = ("uploads", "outputs", "output_keys", "notifications", "custody", "attempts", "receipts")
PAGE = 200
JOBS_A_PAGE = 50

Row = dict[str, Any]


class HeldUser(msgspec.Struct, frozen=True, kw_only=True):
    """The row of a user, apart from the hash of the token."""

    id: str
    created_on: Any
    last_seen_on: Any
    muted: list[str]
    restricted_at: datetime | None
    erasing_at: datetime | None


class HeldStore:
    """Reads what there is about a user; never a key, a blob's name or a handle at a provider."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def user(self, user_id: str) -> HeldUser | None:
        """Return the user as it now stands; None when it is no more."""
        row = await self._database.row(SQL["user"], user_id)
        return None if row is None else HeldUser(**dict(row))

    async def counts(self, user_id: str) -> dict[str, int]:
        """Count what there is, by what it is."""
        return {row["held"]: row["count"] for row in await self._database.rows(SQL["counts"], user_id)}

    async def job_states(self, user_id: str) -> dict[str, int]:
        """Count jobs by state."""
        return {row["state"]: row["jobs"] for row in await self._database.rows(SQL["job_states"], user_id)}

    async def pages(self, name: str, user_id: str) -> AsyncGenerator[list[Row], None]:
        """Yield the rows of one of OF_USER, a page at a time."""
        offset = 0
        while page := [dict(row) for row in await self._database.rows(SQL[name], user_id, offset, PAGE)]:
            yield page
            offset += len(page)

    async def jobs(self, user_id: str) -> AsyncGenerator[list[Row], None]:
        """Yield jobs, oldest first, a page at a time, each with what there is of it under the names of OF_JOB."""
        after: tuple[datetime | None, UUID | None] = (None, None)
        while page := [dict(row) for row in await self._database.rows(SQL["jobs"], user_id, *after, JOBS_A_PAGE)]:
            after = (page[-1]["position"], page[-1]["job_id"])
            yield await self._whole(page)

    async def _whole(self, page: list[Row]) -> list[Row]:
        jobs: dict[UUID, Row] = {job.pop("job_id"): job for job in page}
        for job in jobs.values():
            del job["position"]
            job.update({name: [] for name in OF_JOB})
        for name in OF_JOB:
            for found in await self._database.rows(SQL[name], list(jobs)):
                row = dict(found)
                jobs[row.pop("job_id")][name].append(row)
        return list(jobs.values())

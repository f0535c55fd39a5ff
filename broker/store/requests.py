"""What users asked for by right, in Postgres: a request keeps its id when its user is gone."""

from uuid import UUID, uuid4

import msgspec

from broker.errors import TooManyRequests, Unauthenticated
from broker.rights import ProviderCopies, Request, Right
from broker.store.database import Database
from broker.store.files import statements

SQL = statements("requests")
MOST_A_DAY = 50
MOST_SHOWN = 1_000
A_DAY_S = 86_400


class RequestStore:
    """The rows of `requests`, and the mark of who restricted processing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, user_id: str, kind: Right, *, answer_within_days: int) -> Request:
        """Record what was done as soon as it was asked; raise TooManyRequests, or Unauthenticated where nobody asks."""
        row = await self._database.row(SQL["add"], uuid4(), user_id, kind, answer_within_days, MOST_A_DAY)
        if row is not None:
            return msgspec.convert(dict(row), Request)
        if not await self.of_user(user_id):
            raise Unauthenticated("nobody has this token any more")
        raise TooManyRequests(f"at most {MOST_A_DAY} requests a day", retry_after_s=A_DAY_S)

    async def find(self, request_id: UUID) -> Request | None:
        """Return one request, whoever asks."""
        row = await self._database.row(SQL["find"], request_id)
        return None if row is None else msgspec.convert(dict(row), Request)

    async def of_user(self, user_id: str) -> list[Request]:
        """Return what a user asked for, the newest thousand, newest first."""
        rows = await self._database.rows(SQL["of_user"], user_id, MOST_SHOWN)
        return [msgspec.convert(dict(row), Request) for row in rows]

    async def copies(self, request_id: UUID) -> list[ProviderCopies]:
        """Return what is known of copies at providers of jobs that an erasure has ended."""
        rows = await self._database.rows(SQL["copies"], request_id)
        return [msgspec.convert(dict(row), ProviderCopies) for row in rows]

    async def counts(self) -> tuple[int, int]:
        """Count open requests, and those of them that are past the day by which they had to be answered."""
        row = await self._database.row(SQL["counts"])
        assert row is not None
        return int(row["open"]), int(row["overdue"])

    async def forget(self, *, records_for_s: float) -> None:
        """Delete requests that were completed long ago."""
        await self._database.rows(SQL["forget"], records_for_s)

    async def restrict(self, user_id: str, *, is_restricted: bool) -> bool:
        """Restrict processing or lift it; False where it was so already."""
        return await self._database.row(SQL["restrict"], user_id, is_restricted) is not None

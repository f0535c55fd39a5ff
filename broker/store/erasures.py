"""A user being erased, in Postgres: marked, jobs and user deleted, and what has to wait for a provider kept apart."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import msgspec

from broker.custody import Copy
from broker.jobs import Job
from broker.rights import Ground, Request
from broker.store.database import Database
from broker.store.files import statements

SQL = statements("erasures")
BATCH = 100
LEASE_S = 30.0
"""How long whoever goes on with a request has before somebody else does."""
AGAIN_S = 2.0
AGAIN_WITH_PROVIDER_S = 15.0
"""Providers are asked once a minute: looking more often finds nothing, however many wait."""
EXPECTED_S = 60.0


class ErasureStore:
    """What an erasure reads and writes; every verb may be repeated, and run twice at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self, request_id: UUID, user_id: str, *, answer_within_days: int, operator: str = ""
    ) -> Request | None:
        """
        Mark the user, who gets nothing new done from now on, and keep the request; None without such a user.

        Whoever asks on another device gets the request that is open already: the lock of the mark lets one begin. An
        operator erases who is known to be a child.
        """
        ground = Ground.CHILD if operator else Ground.ASKED
        values = (request_id, user_id, EXPECTED_S, answer_within_days, LEASE_S, ground, operator)
        async with self._database.connection() as connection, connection.transaction():
            if await connection.fetchrow(SQL["mark"], user_id) is None:
                return None
            row = await connection.fetchrow(SQL["begin"], *values)
        return None if row is None else msgspec.convert(dict(row), Request)

    async def forget_devices(self, user_id: str) -> None:
        """Delete the user's devices."""
        await self._database.rows(SQL["forget_devices"], user_id)

    async def due(self) -> list[Request]:
        """Take requests that nobody goes on with."""
        rows = await self._database.rows(SQL["due"], LEASE_S, BATCH)
        return [msgspec.convert(dict(row), Request) for row in rows]

    async def live(self, user_id: str) -> list[Job]:
        """Return jobs of the user that are not final, a hundred at most."""
        return [msgspec.convert(dict(row), Job) for row in await self._database.rows(SQL["live"], user_id, BATCH)]

    async def open_outputs(self, user_id: str, *, but: Sequence[UUID] = ()) -> list[Copy]:
        """Return the open copies of outputs of a hundred final jobs, all of each; `but` names jobs to leave out."""
        rows = await self._database.rows(SQL["open_outputs"], user_id, BATCH, list(but))
        return [msgspec.convert(dict(row), Copy) for row in rows]

    async def outputs_destroyed(self, job_ids: Sequence[UUID]) -> None:
        """Mark outputs as destroyed."""
        await self._database.rows(SQL["outputs_destroyed"], list(job_ids))

    async def release(self, request: Request) -> list[str] | None:
        """Delete a batch of jobs of which nothing is left, and return their receipts; None when there are no more."""
        return await self._batch("release", request)

    async def detach(self, request: Request) -> list[str] | None:
        """Let a batch of jobs go on without their user, and return their receipts; None when there are no more."""
        return await self._batch("detach", request)

    async def _batch(self, name: str, request: Request) -> list[str] | None:
        rows = await self._database.rows(SQL[name], request.user_id, request.id, BATCH)
        return [row["note"] for row in rows if row["note"]] if rows else None

    async def delete_user(self, request: Request) -> bool:
        """Delete the user and all that goes with the row; False while a job is left."""
        try:
            return await self._database.row(SQL["delete_user"], request.user_id, request.id) is not None
        except asyncpg.ForeignKeyViolationError:
            return False  # a job came in while we looked

    async def note_progress(self, request: Request) -> None:
        """Write how far the erasure is, and when somebody goes on."""
        await self._database.rows(SQL["note_progress"], request.id, AGAIN_S, AGAIN_WITH_PROVIDER_S)

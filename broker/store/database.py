"""The Postgres pool: runs named statements, and turns a lost server into StoreUnavailable."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec

from broker.errors import StoreUnavailable

CONNECT_TIMEOUT_S = 3.0
COMMAND_TIMEOUT_S = 10.0
CANCEL_WITHIN_S = 0.5
"""So long a statement that its caller gave up may take to be broken off; then the connection is dropped."""

LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg makes of a session that ended while nobody used it
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,  # a deadlock or a lost race: nothing was written, and trying again is right
)

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.pool.PoolConnectionProxy  # a generic in its stubs alone


class Database:
    """One pool per process; every failure to reach the server raises StoreUnavailable."""

    def __init__(self, dsn: str, *, connections: int) -> None:
        self._pool = asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=connections,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            init=_prepare_connection,
            reset=_keep_as_it_is,
        )

    async def open(self) -> None:
        """Make the pool; the first connection is made when it is needed."""
        await self._pool

    async def aclose(self) -> None:
        """Close every connection, without waiting for ever."""
        self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection, None]:
        """Lend one connection."""
        try:
            # asyncpg's own timeout starts a task for every statement; this one does not.
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await self._pool.acquire()
            try:
                yield connection
            except asyncpg.InternalClientError:
                connection.terminate()  # it has lost its place in the protocol, and the pool would lend it again
                raise
            finally:
                with suppress(TimeoutError):  # a server that does not answer: the caller's own word is what counts
                    await self._pool.release(connection, timeout=CANCEL_WITHIN_S)
        except LOST as exc:
            raise StoreUnavailable from exc

    async def rows(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Run a statement and return its rows."""
        async with self.connection() as connection:
            return await connection.fetch(statement, *values)

    async def row(self, statement: str, *values: object) -> asyncpg.Record | None:
        """Run a statement and return its first row."""
        async with self.connection() as connection:
            return await connection.fetchrow(statement, *values)


async def _prepare_connection(connection: Any) -> None:
    await connection.set_type_codec("jsonb", encoder=_encode_json, decoder=msgspec.json.decode, schema="pg_catalog")


async def _keep_as_it_is(connection: Any) -> None:
    """Nothing here sets session state, so that asyncpg's own reset would be a second round trip for every statement."""


def _encode_json(value: object) -> str:
    return msgspec.json.encode(value).decode()

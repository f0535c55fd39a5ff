"""
Databases for tests: one for each, used again once it is empty.

Making one from a template and dropping it, six hundred files, would be most of what a short test costs.
"""

import os
import secrets
import signal
from pathlib import Path

import asyncpg

from broker.embedded import Embedded
from broker.migrate import migrate

TEMPLATE = "lethe_template"
ADMIN = "postgres"
MADE = f"CREATE DATABASE {{}} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY"
WITHIN_MS = 10_000

EVERYBODY_OUT = """
SELECT pg_terminate_backend(pid, $1) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
SHAPE = """
SELECT (SELECT array_agg(oid::text || relname::text ORDER BY oid) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'S')) AS relations,
       (SELECT array_agg(tgname::text || tgenabled::text ORDER BY oid) FROM pg_trigger) AS triggers,
       (SELECT count(*) FROM migrations) AS migrations
"""
TABLES = """
SELECT quote_ident(relname) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'migrations'
"""
SIZE = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
"""
GROWN_BYTES = 4 << 20
"""What is deleted stays in the files: one that has grown so much is dropped, since its tables are slow to read."""
COUNTERS = "SELECT setval(oid, 1, false) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S'"


class Databases:
    """Those of one Postgres, which is let go of its care for the disk and lets its superuser in."""

    def __init__(self, embedded: Embedded, folder: Path) -> None:
        self._embedded = embedded
        self.folder = folder
        self._free: list[str] = []
        self._shape: asyncpg.Record | None = None

    async def open(self) -> None:
        """Make the template."""
        self._configure()
        await self.run_sql(f"CREATE DATABASE {TEMPLATE}")
        await migrate(self.dsn(TEMPLATE))

    def dsn(self, database: str, *, role: str = "") -> str:
        """Say how a database is reached."""
        dsn = self._embedded.postgres_dsn.replace("@/lethe?", f"@/{database}?")
        return dsn.replace("//lethe@", f"//{role}@") if role else dsn

    async def run_sql(self, statement: str) -> None:
        """Run a statement on the server."""
        connection = await asyncpg.connect(self._embedded.postgres_dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def take(self) -> str:
        """Return the name of an empty one."""
        if self._free:
            return self._free.pop()
        name = f"t_{secrets.token_hex(6)}"
        await self.run_sql(MADE.format(name))
        return name

    async def give_back(self, name: str) -> None:
        """Empty it for the next test; drop it where a test has changed more than rows."""
        if await self._is_emptied(name):
            self._free.append(name)
        else:
            await self.drop(name)

    async def drop(self, name: str) -> None:
        """Drop one, whoever is connected."""
        await self.run_sql(f"DROP DATABASE {name} WITH (FORCE)")

    async def _is_emptied(self, name: str) -> bool:
        connection = await asyncpg.connect(self.dsn(name, role=ADMIN))
        try:
            await connection.fetch(EVERYBODY_OUT, WITHIN_MS)
            is_large = await connection.fetchval(SIZE) > GROWN_BYTES
            if is_large or await connection.fetchrow(SHAPE) != await self._shape_of_template():
                return False
            tables = [table for (table,) in await connection.fetch(TABLES)]
            # As a replica does: no trigger fires, neither those that guard rows nor those of foreign keys.
            deletes = "".join(f"DELETE FROM {table};" for table in tables)
            await connection.execute(f"SET session_replication_role = replica; {deletes} {COUNTERS}")
            return True
        finally:
            await connection.close()

    async def _shape_of_template(self) -> asyncpg.Record:
        if self._shape is None:
            connection = await asyncpg.connect(self.dsn(TEMPLATE, role=ADMIN))
            self._shape = await connection.fetchrow(SHAPE)
            await connection.close()
            assert self._shape is not None
        return self._shape

    def _configure(self) -> None:
        # No test cuts the machine's power, and whatever else dies, the kernel still has what was written. Waiting for
        # the disk takes half of the time of a test with a database of its own.
        with (self.folder / "postgresql.conf").open("a") as configuration:
            # What planners are told of tables must not hang on the tests before.
            configuration.write("fsync = off\nfull_page_writes = off\nautovacuum = off\n")
        client = (self.folder / "pg_ident.conf").read_text().split()[1]
        with (self.folder / "pg_ident.conf").open("a") as identities:
            identities.write(f"lethe {client} {ADMIN}\n")
        with (self.folder / "pg_hba.conf").open("a") as lines:
            lines.write(f"local all {ADMIN} peer map=lethe\n")
        (postgres,) = (child for child in self._embedded.children if child.name == "postgres")
        os.kill(postgres.pid, signal.SIGHUP)

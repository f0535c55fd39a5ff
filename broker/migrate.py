"""Brings the database to the newest schema: forward only, one at a time under an advisory lock."""

import asyncpg

from broker.store.files import migrations

LOCK = 0x4C657468  # "Leth"


class DatabaseTooOld(Exception):
    """Lethe needs PostgreSQL 15 or newer."""


async def migrate(dsn: str) -> list[int]:
    """Apply what is missing, each migration in its own transaction; return the numbers applied."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        if connection.get_server_version().major < 15:
            raise DatabaseTooOld(f"found {connection.get_server_version().major}")
        await connection.execute("SET lock_timeout = '5s'; SET statement_timeout = '60s'")
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        await connection.execute("CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY)")
        done = {row["number"] for row in await connection.fetch("SELECT number FROM migrations")}
        missing = [(number, text) for number, text in migrations() if number not in done]
        for number, text in missing:
            async with connection.transaction():
                await connection.execute(text)
                await connection.execute("INSERT INTO migrations (number) VALUES ($1)", number)
        return [number for number, _ in missing]
    finally:
        await connection.close()

"""A database of the release before comes to the newest schema, and its jobs with it."""

from collections.abc import AsyncGenerator
from uuid import UUID, uuid4

import asyncpg
import pytest

from broker.migrate import migrate
from broker.store.files import migrations
from tests.stack import Servers

JOB = """
INSERT INTO jobs (id, public_id, user_id, operation, parameters, media_type, profile, pool, state, upload_bytes,
                  start_by, finish_by)
VALUES ($1, $1, 'usr_x', 'noop', '{}', 'image/png', 'minimal', 'gpu', $2, 7, now(), now())
"""
COPY = """
INSERT INTO custody (job_id, domain, holder, what, ref, detail, fence) VALUES ($1, 'ours', $2, 'upload', $3, $4, 1)
"""


@pytest.fixture
async def old(servers: Servers) -> AsyncGenerator[str]:
    """A database as the first release made it."""
    name = f"t_{uuid4().hex[:12]}"
    await servers.databases.run_sql(f"CREATE DATABASE {name}")
    connection = await asyncpg.connect(servers.databases.dsn(name))
    await connection.execute("CREATE TABLE migrations (number integer PRIMARY KEY); INSERT INTO migrations VALUES (1)")
    await connection.execute(next(text for number, text in migrations() if number == 1))
    await connection.execute("INSERT INTO users (id, token_hash) VALUES ('usr_x', sha256('x'))")
    await connection.close()
    yield servers.databases.dsn(name)
    await servers.databases.drop(name)


async def job_of(connection: "asyncpg.Connection[asyncpg.Record]", state: str) -> UUID:
    """A job of the first release that an upload took over while it came in: only the newest copies count."""
    job_id = uuid4()
    await connection.execute(JOB, job_id, state)
    for blob, key in (("old", "00" * 16), ("new", "11" * 16)):
        await connection.execute(COPY, job_id, "blob", blob, "")
        await connection.execute(COPY, job_id, "key", key, "22" * 16)
    return job_id


async def test_jobs_on_their_way_keep_their_picture(old: str) -> None:
    """What was admitted before the migration is listed as if it had been admitted after it; what was not, is not."""
    connection = await asyncpg.connect(old)
    waiting, coming = await job_of(connection, "queued"), await job_of(connection, "receiving")

    assert await migrate(old) == [number for number, _ in migrations() if number > 1]
    assert await migrate(old) == []

    rows = await connection.fetch("SELECT * FROM uploads")
    assert [dict(row) for row in rows] == [
        {
            "job_id": waiting,
            "n": 0,
            "what": "upload",
            "blob": "new",
            "key_id": b"\x11" * 16,
            "incarnation": b"\x22" * 16,
            "media_type": "image/png",
            "size_bytes": 7,
        }
    ]
    assert coming != waiting
    await connection.close()

"""The law that Postgres repeats, tried with raw SQL: no final job with an open copy, whoever writes, in any order."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Literal
from uuid import UUID, uuid4

import asyncpg
import pytest

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # a generic in its stubs alone

NEW_JOB = """
INSERT INTO jobs (id, public_id, user_id, operation, parameters, profile, pool, state, outcome, start_by, finish_by)
VALUES ($1, $1, 'usr_x', 'noop', '{}', 'minimal', 'gpu', 'settling', 'failed', now(), now())
"""
OPEN = "INSERT INTO custody (job_id, domain, holder, what, ref, fence) VALUES ($1, 'ours', 'key', 'upload', 'ab', 1)"
CLOSE = "UPDATE custody SET closed_at = now(), evidence = 'shredded' WHERE job_id = $1 AND closed_at IS NULL"
FINISH = "UPDATE jobs SET state = 'failed', finalized_at = now() WHERE id = $1"
REFUSED = (asyncpg.CheckViolationError, asyncpg.SerializationError)
# A transaction that sees no row to count may be told so too late to open a copy, and is refused all the same.
Isolation = Literal["read_committed", "repeatable_read", "serializable"]
ISOLATIONS = ("read_committed", "repeatable_read", "serializable")


@pytest.fixture
async def connections(dsn: str) -> AsyncGenerator[tuple[Connection, Connection]]:
    async with AsyncExitStack() as stack:
        pair = [await asyncpg.connect(dsn) for _ in range(2)]
        for connection in pair:
            stack.push_async_callback(connection.close)
        await pair[0].execute("INSERT INTO users (id, token_hash) VALUES ('usr_x', sha256('x'))")
        yield pair[0], pair[1]


@pytest.fixture
def connection(connections: tuple[Connection, Connection]) -> Connection:
    return connections[0]


async def settling_job(connection: Connection, *, opened: int = 0) -> UUID:
    job_id = uuid4()
    await connection.execute(NEW_JOB, job_id)
    for _ in range(opened):
        await connection.execute(OPEN, job_id)
    return job_id


async def stands(connection: Connection, job_id: UUID) -> tuple[bool, int, int]:
    """Whether the job is final, what its counter says, and how many copies are really open."""
    row = await connection.fetchrow(
        "SELECT finalized_at IS NOT NULL AS final, open_copies, "
        "(SELECT count(*) FROM custody WHERE job_id = jobs.id AND closed_at IS NULL) AS open FROM jobs WHERE id = $1",
        job_id,
    )
    assert row is not None
    return row["final"], row["open_copies"], row["open"]


async def is_waiting_for_a_lock(connection: Connection) -> None:
    async with asyncio.timeout(5):
        while not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_job_with_an_open_copy_cannot_be_final(connection: Connection) -> None:
    """One open row of two is enough to refuse; with none left the job may end."""
    job_id = await settling_job(connection, opened=2)
    await connection.execute(
        "UPDATE custody SET closed_at = now(), evidence = 'shredded' WHERE id = (SELECT min(id) FROM custody)"
    )
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(FINISH, job_id)

    await connection.execute(CLOSE, job_id)
    await connection.execute(FINISH, job_id)

    assert await stands(connection, job_id) == (True, 0, 0)


async def test_a_final_job_gets_no_new_copy(connection: Connection) -> None:
    """Opening a copy of an upload that a receipt calls gone is refused."""
    job_id = await settling_job(connection)
    await connection.execute(FINISH, job_id)

    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(OPEN, job_id)


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_opened_first_then_final(connections: tuple[Connection, Connection], isolation: Isolation) -> None:
    """A copy opened in a transaction that has not ended yet holds up the final state, and then refuses it."""
    opener, finisher = connections
    job_id = await settling_job(opener)

    async with opener.transaction(isolation=isolation):
        await opener.execute(OPEN, job_id)
        finishing = asyncio.create_task(finisher.execute(FINISH, job_id))
        await is_waiting_for_a_lock(opener)

    with pytest.raises(REFUSED):
        await finishing
    assert await stands(opener, job_id) == (False, 1, 1)


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_final_first_then_opened(connections: tuple[Connection, Connection], isolation: Isolation) -> None:
    """A final state that has not been committed yet holds up the opening of a copy, and then refuses it."""
    opener, finisher = connections
    job_id = await settling_job(opener)

    async with finisher.transaction(isolation=isolation):
        await finisher.execute(FINISH, job_id)
        opening = asyncio.create_task(opener.execute(OPEN, job_id))
        await is_waiting_for_a_lock(finisher)

    with pytest.raises(REFUSED):
        await opening
    assert await stands(opener, job_id) == (True, 0, 0)


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_whoever_is_first_the_law_holds(connections: tuple[Connection, Connection], isolation: Isolation) -> None:
    """
    Both at once, many times, in transactions that have read the job before: never final with an open copy.

    The lead of one grows from nothing to twenty milliseconds, so that each is first sometimes, whatever the machine.
    """
    opener, finisher = connections

    async def attempt(connection: Connection, statement: str, job_id: UUID, *, after_s: float) -> None:
        await asyncio.sleep(after_s)
        try:
            async with connection.transaction(isolation=isolation):
                await connection.fetch("SELECT * FROM jobs, custody WHERE jobs.id = $1", job_id)
                await connection.execute(statement, job_id)
        except REFUSED:
            pass

    seen: set[bool] = set()
    for turn in range(40):
        job_id = await settling_job(opener)
        lead_s = turn * 0.0005
        opens_after_s, ends_after_s = (0.0, lead_s) if turn % 2 else (lead_s, 0.0)
        await asyncio.gather(
            attempt(opener, OPEN, job_id, after_s=opens_after_s),
            attempt(finisher, FINISH, job_id, after_s=ends_after_s),
        )
        is_final, counted, really = await stands(opener, job_id)
        assert counted == really
        assert is_final is (really == 0)
        seen.add(is_final)
    assert seen == {True, False}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs SET open_copies = 0 WHERE id = $1",
        "UPDATE jobs SET open_copies = open_copies - 1 WHERE id = $1",
        "UPDATE jobs SET open_copies = 0, state = 'failed', finalized_at = now() WHERE id = $1",
        "UPDATE jobs SET open_copies = open_copies + 1 WHERE id = $1",
        "WITH c AS (UPDATE custody SET closed_at = now(), evidence = 'shredded' WHERE false) "
        "UPDATE jobs SET open_copies = 0 WHERE id = $1",
    ],
)
async def test_nobody_sets_the_counter_by_hand(connection: Connection, statement: str) -> None:
    """The counter follows custody and nothing else."""
    job_id = await settling_job(connection, opened=1)

    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(statement, job_id)
    assert await stands(connection, job_id) == (False, 1, 1)


@pytest.mark.parametrize("count", [-1, 1])
async def test_no_job_starts_with_a_counter(connection: Connection, count: int) -> None:
    """A job is born without copies, so that no lead can be planted in its counter."""
    counted = NEW_JOB.replace("state,", "open_copies, state,").replace("'settling',", f"{count}, 'settling',")
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(counted, uuid4())


@pytest.mark.parametrize(
    "change",
    [
        "closed_at = NULL, evidence = NULL",
        "evidence = 'unreadable'",
        "closed_at = now() + interval '1 hour'",
        "ref = 'cd'",
        "what = 'output'",
        "domain = 'provider', evidence = 'unknown'",
        "job_id = (SELECT id FROM jobs WHERE state = 'settling' LIMIT 1)",
    ],
)
async def test_a_closed_copy_stays_closed_as_it_is(connection: Connection, change: str) -> None:
    """What a receipt says cannot be rewritten."""
    job_id = await settling_job(connection, opened=1)
    await connection.execute(CLOSE, job_id)
    await connection.execute(FINISH, job_id)
    await settling_job(connection)

    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(f"UPDATE custody SET {change} WHERE job_id = $1", job_id)


@pytest.mark.parametrize(
    "change",
    [
        "what = 'output'",
        "domain = 'provider'",
        "holder = 'blob'",
        "ref = 'cd'",
        "fence = 9",
        "opened_at = now() - interval '1 day'",
        "job_id = (SELECT id FROM jobs WHERE open_copies = 0 LIMIT 1)",
    ],
)
async def test_an_open_copy_can_only_be_closed(connection: Connection, change: str) -> None:
    """No row is talked out of its job, its domain, its kind or its fence."""
    job_id = await settling_job(connection, opened=1)
    await settling_job(connection)

    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(f"UPDATE custody SET {change} WHERE job_id = $1", job_id)
    assert await stands(connection, job_id) == (False, 1, 1)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM custody WHERE job_id = $1",
        "DELETE FROM jobs WHERE id = $1",
        "DELETE FROM users WHERE id = (SELECT user_id FROM jobs WHERE id = $1)",
    ],
)
async def test_an_open_copy_cannot_be_deleted(connection: Connection, statement: str) -> None:
    """Neither alone nor with its job, nor is a user deleted over it."""
    job_id = await settling_job(connection, opened=1)

    with pytest.raises((asyncpg.CheckViolationError, asyncpg.ForeignKeyViolationError)):
        await connection.execute(statement, job_id)
    assert await stands(connection, job_id) == (False, 1, 1)


async def test_emptying_custody_leaves_no_job_that_could_be_final(connection: Connection) -> None:
    """TRUNCATE fires no trigger per row, so it is refused while anything is open."""
    job_id = await settling_job(connection, opened=1)

    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("TRUNCATE custody")
    assert await stands(connection, job_id) == (False, 1, 1)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'running', finalized_at = NULL, outcome = NULL",
        "state = 'settling', finalized_at = NULL",
        "state = 'succeeded', outcome = 'succeeded'",
        "finalized_at = now() + interval '1 hour'",
    ],
)
async def test_a_final_state_stays(connection: Connection, change: str) -> None:
    """No way leads out of a final state, nor from one to another."""
    job_id = await settling_job(connection)
    await connection.execute(FINISH, job_id)

    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(f"UPDATE jobs SET {change} WHERE id = $1", job_id)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'succeeded', finalized_at = now()",
        "state = 'failed'",
        "finalized_at = now()",
        "outcome = NULL",
        "state = 'queued'",
        "state = 'lost'",
    ],
)
async def test_a_state_fits_its_outcome(connection: Connection, change: str) -> None:
    """Final means finalized, settling means decided, and a job becomes what was decided."""
    job_id = await settling_job(connection)

    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(f"UPDATE jobs SET {change} WHERE id = $1", job_id)


@pytest.mark.parametrize(
    ("domain", "holder", "evidence"),
    [
        ("ours", "key", "absent"),
        ("ours", "key", "lease_ended"),
        ("ours", "blob", "shredded"),
        ("ours", "blob", "overwritten"),
        ("ours", "process", "shredded"),
        ("ours", "process", "absent"),
        ("ours", "process", "unknown"),
        ("ours", "key", "gone"),
        ("ours", "blob", "kept_by_terms"),
        ("provider", "provider", "shredded"),
    ],
)
async def test_evidence_fits_what_it_is_evidence_of(
    connection: Connection, domain: str, holder: str, evidence: str
) -> None:
    """A key is shredded, a blob absent or unreadable, a process let go: no other word closes its row."""
    job_id = await settling_job(connection)
    await connection.execute(
        "INSERT INTO custody (job_id, domain, holder, what, ref, fence) VALUES ($1, $2, $3, 'upload', 'ab', 1)",
        job_id,
        domain,
        holder,
    )
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(
            "UPDATE custody SET closed_at = now(), evidence = $2 WHERE job_id = $1", job_id, evidence
        )


async def test_outputs_and_provider_copies_do_not_count(connection: Connection) -> None:
    """What a job made, and what a provider keeps, may outlive the job; the receipt says so."""
    job_id = await settling_job(connection)
    await connection.execute(
        "INSERT INTO custody (job_id, domain, holder, what, ref, fence) "
        "VALUES ($1, 'ours', 'blob', 'output', 'ab', 1), ($1, 'provider', 'provider', 'upload', 'cd', 1)",
        job_id,
    )
    await connection.execute(FINISH, job_id)

    assert await stands(connection, job_id) == (True, 0, 2)


async def test_many_rows_of_many_jobs_in_one_statement(connection: Connection) -> None:
    """One statement over several jobs moves each counter by its own rows."""
    one, two = await settling_job(connection, opened=3), await settling_job(connection, opened=1)
    await connection.execute(
        "INSERT INTO custody (job_id, domain, holder, what, ref, fence) "
        "SELECT id, 'ours', 'key', 'parameters', 'ab', 1 FROM jobs, generate_series(1, 2)"
    )
    assert [await stands(connection, job) for job in (one, two)] == [(False, 5, 5), (False, 3, 3)]

    await connection.execute(
        "UPDATE custody SET closed_at = now(), evidence = 'shredded' WHERE what = 'upload' AND closed_at IS NULL"
    )

    assert [await stands(connection, job) for job in (one, two)] == [(False, 2, 2), (False, 2, 2)]

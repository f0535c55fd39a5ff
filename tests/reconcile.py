"""
Rows, blobs and keys compared with one another, past Lethe's own words: what is there without the others?

Everything is asked of the stores themselves: SQL, the directory, the keyholder's own frames.
"""

from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec

from broker.custody import KeptAt
from broker.store.keys import Keyholder
from broker.verify import check, read_keys

NOT_FINAL = "SELECT public_id FROM jobs WHERE finalized_at IS NULL"
ALIVE = """
    SELECT jobs.public_id FROM jobs JOIN custody ON custody.job_id = jobs.id
    WHERE custody.closed_at IS NULL AND custody.domain = 'ours' AND custody.what <> 'output'
"""
STRAY_OUTPUTS = """
    SELECT jobs.public_id FROM jobs JOIN custody ON custody.job_id = jobs.id
    WHERE custody.closed_at IS NULL AND custody.domain = 'ours' AND custody.what = 'output'
      AND jobs.finalized_at IS NOT NULL AND (jobs.state <> 'succeeded' OR jobs.outputs_until < now())
"""
NOT_ONE_FIRST_RECEIPT = """
    SELECT public_id FROM jobs
    WHERE finalized_at IS NOT NULL
      AND (SELECT count(*) FROM receipts WHERE receipts.job_id = jobs.id AND revision = 1) <> 1
"""
CHARGED_WRONGLY = "SELECT public_id FROM jobs WHERE charged AND state <> 'succeeded'"
PAID_TWICE = """
    SELECT job_id FROM attempts WHERE is_outside AND state = 'succeeded'
    GROUP BY job_id HAVING count(*) > 1
"""
BLOBS = """
    SELECT ref, closed_at IS NULL AS is_open FROM custody
    WHERE holder = 'blob' AND (closed_at IS NULL OR (evidence = 'unreadable' AND swept_at IS NULL))
"""
KEYS = "SELECT ref, detail FROM custody WHERE holder = 'key' AND closed_at IS NULL"
RECEIPTS = "SELECT note FROM receipts"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What does not fit, by its class; every list is to be empty."""

    row_without_end: list[str]
    upload_alive: list[str]
    stray_output: list[str]
    not_one_receipt: list[str]
    charged_wrongly: list[str]
    paid_twice: list[str]
    blob_without_row: list[str]
    row_without_blob: list[str]
    key_without_row: list[str]
    row_without_key: list[str]

    @property
    def violations(self) -> list[str]:
        """Each class that is not empty, with what is in it."""
        classes: dict[str, list[str]] = msgspec.to_builtins(self)
        return [f"{name}: {', '.join(sorted(found))}" for name, found in classes.items() if found]


class Stores:
    """Past every word of Lethe's: the database, the directory of blobs, the keyholder."""

    def __init__(self, dsn: str, keyholder_socket: str, blobs: Path) -> None:
        self._dsn = dsn
        self._socket = keyholder_socket
        self._blobs = blobs

    async def reconcile(self) -> Found:
        """Compare."""
        keyholder = Keyholder(self._socket)
        postgres = await asyncpg.connect(self._dsn)
        try:
            blobs = {path.name for path in self._blobs.iterdir()}
            async with postgres.transaction(isolation="repeatable_read"):
                named = {row["ref"]: row["is_open"] for row in await postgres.fetch(BLOBS)}
                keys = [dict(row) for row in await postgres.fetch(KEYS)]
                rows = {name: await _ids(postgres, query) for name, query in _QUERIES.items()}
            incarnation = await keyholder.hello()
            ours = [row["ref"] for row in keys if KeptAt.read(row["detail"]).incarnation == incarnation]
            lost = [ref for ref in ours if not await keyholder.has(bytes.fromhex(ref))]
            held = (await keyholder.stats()).held
        finally:
            await keyholder.aclose()
            await postgres.close()
        return Found(
            **rows,
            blob_without_row=sorted(blobs - set(named)),
            row_without_blob=sorted(ref for ref, is_open in named.items() if is_open and ref not in blobs),
            key_without_row=[f"{held} held, {len(ours)} known"] if held > len(ours) - len(lost) else [],
            row_without_key=lost,
        )

    async def receipts_verify(self, keys: str) -> int:
        """Verify every receipt that there is; return how many."""
        postgres = await asyncpg.connect(self._dsn)
        try:
            notes = [row["note"] for row in await postgres.fetch(RECEIPTS)]
        finally:
            await postgres.close()
        known = read_keys(keys)
        for note in notes:
            check(note, known)
        return len(notes)

    async def states(self) -> dict[UUID, str]:
        """The state of every job, by the id that its user chose."""
        postgres = await asyncpg.connect(self._dsn)
        try:
            rows = await postgres.fetch("SELECT public_id, state FROM jobs")
        finally:
            await postgres.close()
        return {row["public_id"]: row["state"] for row in rows}


_QUERIES = {
    "row_without_end": NOT_FINAL,
    "upload_alive": ALIVE,
    "stray_output": STRAY_OUTPUTS,
    "not_one_receipt": NOT_ONE_FIRST_RECEIPT,
    "charged_wrongly": CHARGED_WRONGLY,
    "paid_twice": PAID_TWICE,
}


async def _ids(postgres: asyncpg.Connection, query: str) -> list[str]:
    return [str(row[0]) for row in await postgres.fetch(query)]

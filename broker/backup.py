"""
Backs Postgres up, and restores it so that nothing comes back that was erased meanwhile.

Uploads, outputs and keys are not in Postgres, and so in no backup. Who was erased is remembered in the blob store, as
SHA-256 of random ids; a restore reads that list, and refuses a store that does not know the backup.
"""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from broker.dumping import DumpError, Report, find_program, run_program
from broker.migrate import migrate
from broker.rights import ERASED
from broker.store.backups import BackupStore
from broker.store.blobs import BlobStore
from broker.store.database import Database

BACKUPS = "backups"
"""The folder of the blob store that knows each backup by its digest."""
KEPT_FOR = timedelta(days=400)
"""A backup older than this cannot be restored, and the erased are not remembered for longer."""
_LEFT_OUT = ("processes", "notifications", "link_tokens", "sessions")
"""Processes of then are not those of now, nobody is told twice, and what let a device in may have ended since."""
_OWNERLESS = ("--no-owner", "--no-privileges")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What is backed up, or restored: a database, the blob store beside it, and where programs of a wheel lie."""

    dsn: str
    blobs_url: str
    data_directory: Path

    def __repr__(self) -> str:
        """Never show a password."""
        return "Place()"


async def back_up(place: Place, file: Path, report: Report) -> str:
    """Write a backup, let the blob store know it, and return its digest; raise DumpError or Unavailable."""
    if file.exists():
        raise DumpError(f"{file} exists; give the backup another name")
    blobs, draft = BlobStore(place.blobs_url), file.with_name(f"{file.name}.part")
    await _forget_old(blobs)
    async with _store(place) as store:
        program = await find_program("pg_dump", major=await store.major_version(), data_directory=place.data_directory)
    report("Dumping …")
    try:
        draft.touch(mode=0o600)
        left_out = (f"--exclude-table-data={table}" for table in _LEFT_OUT)
        told = ("--format=custom", *_OWNERLESS, *left_out, f"--file={draft}")
        await run_program(program, place.dsn, *told, watched=draft, report=report)
        digest = _digest(draft)
        await blobs.mark(f"{BACKUPS}/{digest}")
        draft.rename(file)
    finally:
        draft.unlink(missing_ok=True)
    return digest


async def restore(place: Place, file: Path, report: Report) -> int:
    """Load a backup into an empty database and begin to erase again; return how many users. Raises DumpError."""
    blobs, digest = BlobStore(place.blobs_url), _digest(file)
    await _require_known(blobs, digest, file)
    gone = list(await blobs.marks(ERASED))  # before anything is loaded: without it nothing may be
    async with _store(place) as store:
        if tables := await store.tables():
            raise DumpError(f"the database is not empty: it has {tables} tables; restore into a new one")
        program = await find_program(
            "pg_restore", major=await store.major_version(), data_directory=place.data_directory
        )
    report("Loading …")
    options = (*_OWNERLESS, "--exit-on-error", "--single-transaction", str(file))
    await run_program(program, place.dsn, *options, watched=None, report=report)
    report("Bringing it to the newest version …")
    await migrate(place.dsn)
    report("Erasing again who was erased since …")
    async with _store(place) as store:
        erased = await store.erase_again(gone)
        await store.withdraw_consents()
        await store.note_restored(digest)
    return erased


@asynccontextmanager
async def _store(place: Place) -> AsyncGenerator[BackupStore]:
    database = Database(place.dsn, connections=1)
    await database.open()
    try:
        yield BackupStore(database)
    finally:
        await database.aclose()


async def _require_known(blobs: BlobStore, digest: str, file: Path) -> None:
    if digest in await blobs.marks(BACKUPS):
        return
    raise DumpError(
        f"the blob store does not know {file.name}: it was changed, is older than {KEPT_FOR.days} days, or was made "
        "beside another blob store. Without the list of erasures in it, people who were erased would come back"
    )


async def _forget_old(blobs: BlobStore) -> None:
    # Backups first: none may be left that knows somebody whose erasure is forgotten.
    for folder in (BACKUPS, ERASED):
        for name, written_at in (await blobs.marks(folder)).items():
            if written_at < datetime.now(UTC) - KEPT_FOR:
                await blobs.unmark(f"{folder}/{name}")


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

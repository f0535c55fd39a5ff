"""What a backup and a restore ask of Postgres, beside the programs that dump and load it."""

from collections.abc import Sequence

from broker.store.database import Database
from broker.store.files import statements

SQL = statements("backups")
AT_ONCE = 10_000


class BackupStore:
    """Looks at a database before it is dumped or loaded, and erases again after it was loaded."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def major_version(self) -> int:
        """Return the server's major version."""
        row = await self._database.row(SQL["version"])
        assert row is not None
        return int(row["major"])

    async def tables(self) -> int:
        """Count the tables that are there."""
        row = await self._database.row(SQL["tables"])
        assert row is not None
        return int(row["tables"])

    async def erase_again(self, digests: Sequence[str]) -> int:
        """Begin the erasure of users whose ids have these digests (SHA-256, hex); return how many there are."""
        erased = 0
        for start in range(0, len(digests), AT_ONCE):
            erased += len(await self._database.rows(SQL["erase_again"], list(digests[start : start + AT_ONCE])))
        return erased

    async def withdraw_consents(self) -> None:
        """Withdraw whatever anybody consented to: what was withdrawn since the backup must not come back as given."""
        await self._database.rows(SQL["withdraw_all"])

    async def note_restored(self, digest: str) -> None:
        """Record that a backup was restored."""
        await self._database.rows(SQL["restored"], digest)

"""Which of our processes are alive, by the database's clock, and what they can do."""

from uuid import UUID

import msgspec

from broker.posture import Fact
from broker.store.database import Database
from broker.store.files import statements

SQL = statements("processes")


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a process tells the others about itself."""

    address: str = ""
    operator_address: str = ""
    pool: str = ""
    providers: tuple[str, ...] = ()
    """The providers that it runs, by their names in lethe.toml."""
    speeds: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    """Seconds of model time per megapixel of input, by variant."""
    posture: tuple[Fact, ...] = ()
    """What is true of it, as it sees itself."""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One live process."""

    id: UUID
    role: str
    facts: Facts


class ProcessStore:
    """The rows of `processes`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, process: Process, *, lease_s: float) -> None:
        """Take the first lease."""
        await self._database.rows(SQL["register"], process.id, process.role, lease_s, process.facts)

    async def renew(self, process: Process, *, lease_s: float) -> bool:
        """Lengthen the lease; False when it has ended."""
        return await self._database.row(SQL["renew"], process.id, lease_s, process.facts) is not None

    async def leave(self, process_id: UUID) -> None:
        """End the lease: the process holds nothing any more."""
        await self._database.rows(SQL["leave"], process_id)

    async def alive(self) -> list[Process]:
        """Return every process with a live lease."""
        return [msgspec.convert(dict(row), Process) for row in await self._database.rows(SQL["alive"])]

    async def forget_dead(self) -> None:
        """Delete rows that nothing refers to any more."""
        await self._database.rows(SQL["forget_dead"])

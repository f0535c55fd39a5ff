"""Devices in Postgres: public keys of a user, to which outputs are sealed."""

from uuid import UUID, uuid4

import msgspec

from broker.device_errors import TooManyDevices
from broker.devices import MOST_DEVICES, Device, Kem
from broker.errors import Unauthenticated
from broker.store.database import Database
from broker.store.files import statements

SQL = statements("devices")


class DeviceStore:
    """The rows of `devices`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, user_id: str, kem: Kem, public_key: bytes) -> tuple[Device, bool]:
        """Return the device with this key, and whether it is new; raise TooManyDevices. Idempotent by the key."""
        async with self._database.connection() as connection, connection.transaction():
            if await connection.fetchrow(SQL["lock_owner"], user_id) is None:
                raise Unauthenticated("nobody has this token any more")
            row = await connection.fetchrow(SQL["find_key"], user_id, public_key)
            if row is not None:
                return msgspec.convert(dict(row), Device), False
            row = await connection.fetchrow(SQL["add"], uuid4(), user_id, kem, public_key, MOST_DEVICES)
            if row is None:
                raise TooManyDevices(f"a user has {MOST_DEVICES} devices at most; delete one that is not used any more")
            return msgspec.convert(dict(row), Device), True

    async def of_user(self, user_id: str) -> list[Device]:
        """Return a user's devices, oldest first."""
        return [msgspec.convert(dict(row), Device) for row in await self._database.rows(SQL["of_user"], user_id)]

    async def delete(self, user_id: str, device_id: UUID) -> bool:
        """Delete a device and every key that was wrapped to it; False when the user has no such device."""
        return await self._database.row(SQL["delete"], user_id, device_id) is not None

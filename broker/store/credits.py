"""Credits in Postgres: an account per user and its entries. Jobs hold and take theirs by triggers (migrations 6, 8)."""

from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from broker.account_errors import UserNotFound
from broker.purchases import REDEEM_WITHIN_S
from broker.store.database import Database
from broker.store.files import statements

SQL = statements("credits")
A_DAY_S = 86_400


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What a user has, and how much of it jobs under way hold."""

    credits: int = 0
    held: int = 0


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an account: granted, held, captured, released or refunded."""

    kind: str
    credits: int
    at: datetime
    reference: str | None
    """The app's own id of a grant."""
    job: UUID | None
    """The job as its user knows it, while its record is kept."""


class CreditStore:
    """The rows of `accounts` and `credit_entries`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def grant(self, user_id: str, amount: int, *, reference: str) -> bool:
        """Add credits, once per reference; False where it was granted before. Raises UserNotFound."""
        try:
            return await self._database.row(SQL["grant"], user_id, amount, reference) is not None
        except asyncpg.ForeignKeyViolationError as exc:
            raise UserNotFound from exc

    async def redeem(self, user_id: str, digest: bytes, amount: int) -> bool:
        """Add the credits of a purchase, once for all users; False where it was redeemed. Raises UserNotFound."""
        try:
            return await self._database.row(SQL["redeem"], user_id, amount, _reference(digest), digest) is not None
        except asyncpg.ForeignKeyViolationError as exc:
            raise UserNotFound from exc

    async def has_redeemed(self, user_id: str, digest: bytes) -> bool:
        """Whether it was this user who redeemed a purchase."""
        return await self._database.row(SQL["has"], user_id, _reference(digest)) is not None

    async def forget_purchases(self) -> None:
        """Forget purchases that cannot be redeemed again anyway."""
        await self._database.rows(SQL["forget_purchases"], REDEEM_WITHIN_S + A_DAY_S)

    async def account(self, user_id: str) -> Account:
        """Return a user's account; an empty one where nothing was ever granted."""
        row = await self._database.row(SQL["get"], user_id)
        return Account() if row is None else msgspec.convert(dict(row), Account)

    async def entries(self, user_id: str, *, limit: int) -> list[Entry]:
        """Return the newest entries of an account."""
        return [msgspec.convert(dict(row), Entry) for row in await self._database.rows(SQL["entries"], user_id, limit)]


def _reference(digest: bytes) -> str:
    return f"purchase {digest.hex()}"

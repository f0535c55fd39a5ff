"""The vocabulary of purchases: what a shop vouches for, once it was asked; nothing of it but a digest is kept."""

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

import msgspec

REDEEM_WITHIN_S: Final = 7_776_000
"""An app redeems at once; what is older than 90 days is refused, so that digests need not be kept for ever."""


MAX_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, where Python's times end."""


class Shop(StrEnum):
    """Where credits are bought."""

    APP_STORE = "app_store"
    PLAY = "play"


class Purchase(msgspec.Struct, frozen=True, kw_only=True):
    """One purchase of a consumable product, as its shop vouches for it; `transaction` is the shop's own id of it."""

    shop: Shop
    transaction: str
    product: str
    quantity: int
    bought_at: datetime

    def __repr__(self) -> str:
        """Show no id."""
        return f"Purchase({self.shop})"

    @property
    def digest(self) -> bytes:
        """What is kept of it: SHA-256 of the shop and its id."""
        return hashlib.sha256(f"{self.shop}:{self.transaction}".encode()).digest()


class Seller(Protocol):
    """One shop, asked about receipts that phones bring."""

    async def verify(self, receipt: str, product: str) -> Purchase:
        """Return what a receipt is of; raise InvalidPurchase, ShopUnavailable."""
        ...

    async def finish(self, receipt: str, product: str) -> None:
        """Tell the shop that the credits are granted; may be repeated. Raises ShopUnavailable."""
        ...

    async def aclose(self) -> None:
        """Let go."""
        ...

"""The use case of redeeming: a receipt is shown to its shop, and its credits are granted, once for all users."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from broker.account_errors import InvalidPurchase, PurchasesNotSetUp, PurchaseUsed, ShopUnavailable
from broker.errors import TooManyRequests
from broker.google_account import load_account
from broker.limiter import WINDOW_S, Limiter
from broker.purchases import REDEEM_WITHIN_S, Seller, Shop
from broker.settings import Settings, SettingsInvalid
from broker.shops.app_store import AppStore, load_root
from broker.shops.play import Play
from broker.store.credits import CreditStore
from policies.credits import Credits

log = structlog.get_logger()

MAX_RECEIPTS = 30
"""So many of one user in ten minutes, true and false: each has a shop asked, or a chain of signatures checked."""
_WORTHLESS = "the profile names no credits for this product"


class Redeeming:
    """Takes receipts."""

    def __init__(
        self, sellers: Mapping[Shop, Seller], *, credit_store: CreditStore, policy: Credits, redis: Any
    ) -> None:
        self._sellers = sellers
        self._limiter = Limiter(redis, keys="lethe:redeem:*")
        self._store = credit_store
        self._credits = policy

    async def redeem(self, user_id: str, shop: Shop, receipt: str, product: str) -> bool:
        """
        Grant what a receipt is worth; False where this user had it already.

        Raises InvalidPurchase, PurchaseUsed where another user had it, ShopUnavailable, PurchasesNotSetUp,
        TooManyRequests, and QueueUnavailable without Redis, where nobody counts.
        """
        seller = self._sellers.get(shop)
        if seller is None:
            raise PurchasesNotSetUp(f"this server takes no receipts of {shop}")
        if product and product not in self._credits.products:  # nobody is asked about what is worth nothing
            raise InvalidPurchase(_WORTHLESS)
        if await self._limiter.count(user_id) > MAX_RECEIPTS:
            raise TooManyRequests(f"at most {MAX_RECEIPTS} receipts in ten minutes", retry_after_s=WINDOW_S)
        purchase = await seller.verify(receipt, product)
        amount = self._credits.products.get(purchase.product, 0) * purchase.quantity
        if not amount:
            raise InvalidPurchase(_WORTHLESS)
        if (datetime.now(UTC) - purchase.bought_at).total_seconds() > REDEEM_WITHIN_S:
            raise InvalidPurchase("this purchase is too old to be redeemed")
        is_new = await self._store.redeem(user_id, purchase.digest, amount)
        if not is_new and not await self._store.has_redeemed(user_id, purchase.digest):
            raise PurchaseUsed
        await self._finish(seller, receipt, purchase.product)
        return is_new

    async def _finish(self, seller: Seller, receipt: str, product: str) -> None:
        try:
            await seller.finish(receipt, product)
        except ShopUnavailable:
            # The credits are granted; a phone that shows the receipt again has the shop told again.
            log.warning("purchase_unfinished")

    async def aclose(self) -> None:
        """Let go."""
        for seller in self._sellers.values():
            await seller.aclose()


def sellers_of(settings: Settings) -> dict[Shop, Seller]:
    """Read what is needed to ask each shop that settings name; raise SettingsInvalid."""
    sellers: dict[Shop, Seller] = {}
    if root := settings.app_store_root_file:
        _require(settings.app_store_bundle_id, "LETHE_APP_STORE_BUNDLE_ID")
        sellers[Shop.APP_STORE] = AppStore(load_root(Path(root)), settings.app_store_bundle_id)
    if file := settings.play_account_file:
        _require(settings.play_package, "LETHE_PLAY_PACKAGE")
        account = load_account(Path(file), setting="LETHE_PLAY_ACCOUNT_FILE")
        sellers[Shop.PLAY] = Play(account, settings.play_package)
    return sellers


def _require(value: str, setting: str) -> None:
    if not value:
        raise SettingsInvalid(f"{setting} is missing: whose receipts are taken")

"""Google Play: a purchase token, asked about over the Android Publisher API (purchases.products, v3), then consumed."""

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import httpx
import msgspec
import structlog

from broker.account_errors import InvalidPurchase, ShopUnavailable
from broker.google_account import AccessTokens, Account
from broker.purchases import MAX_MS, Purchase, Shop
from providers.calls import trust

log = structlog.get_logger()

URL: Final = "https://androidpublisher.googleapis.com"
SCOPE: Final = "https://www.googleapis.com/auth/androidpublisher"
TIMEOUT_S: Final = 10.0
ASK_WITHIN_S: Final = 20.0
"""Of a token too, for which others may be waiting."""
_PURCHASED: Final = 0
_UNKNOWN: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})


class _ProductPurchase(msgspec.Struct, frozen=True, rename="camel"):
    """The members that are read."""

    purchase_time_millis: str
    purchase_state: int = 0
    quantity: int = 1


class Play:
    """Asks about purchases of one app."""

    def __init__(self, account: Account, package: str, *, url: str = URL, timeout_s: float = TIMEOUT_S) -> None:
        self._base = f"{url}/androidpublisher/v3/applications/{quote(package, safe='')}/purchases/products"
        self._client = httpx.AsyncClient(verify=trust(), trust_env=False, timeout=timeout_s, follow_redirects=False)
        self._tokens = AccessTokens(account, self._client, scope=SCOPE)

    async def verify(self, receipt: str, product: str) -> Purchase:
        """Return what a purchase token is of; raise InvalidPurchase, ShopUnavailable."""
        response = await self._ask("GET", self._path(receipt, product))
        if response.status_code in _UNKNOWN:
            raise InvalidPurchase("Google Play knows no such purchase of this product")
        try:
            found = msgspec.json.decode(_good(response).content, type=_ProductPurchase)
            bought_at = datetime.fromtimestamp(min(int(found.purchase_time_millis), MAX_MS) / 1000, UTC)
        except (msgspec.DecodeError, ValueError) as exc:
            raise ShopUnavailable from exc
        if found.purchase_state != _PURCHASED or found.quantity < 1:
            raise InvalidPurchase("this purchase is not paid yet, or was taken back")
        return Purchase(
            shop=Shop.PLAY, transaction=receipt, product=product, quantity=found.quantity, bought_at=bought_at
        )

    async def finish(self, receipt: str, product: str) -> None:
        """Consume it, so that it can be bought again; Play pays back what nobody consumes within three days."""
        _good(await self._ask("POST", f"{self._path(receipt, product)}:consume"))

    async def aclose(self) -> None:
        """Let go."""
        await self._client.aclose()

    def _path(self, receipt: str, product: str) -> str:
        return f"{self._base}/{quote(product, safe='')}/tokens/{quote(receipt, safe='')}"

    async def _ask(self, method: str, url: str) -> httpx.Response:
        try:
            async with asyncio.timeout(ASK_WITHIN_S):
                response = await self._client.request(method, url, headers=await self._tokens.headers())
        except (httpx.HTTPError, msgspec.DecodeError, TimeoutError) as exc:
            log.warning("shop_failed", code=type(exc).__name__)
            raise ShopUnavailable from exc
        if response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            self._tokens.refused(response.status_code)
        return response


def _good(response: httpx.Response) -> httpx.Response:
    if not response.is_success:
        log.warning("shop_failed", code=str(response.status_code))
        raise ShopUnavailable
    return response

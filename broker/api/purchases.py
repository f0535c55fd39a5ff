"""Purchases over HTTP: a phone shows a receipt of its shop, and its user has the credits."""

import msgspec
from litestar import Response, post
from msgspec import UNSET, UnsetType

from broker.api.bodies import read_object
from broker.api.credits import BalanceView, answer_balance
from broker.api.deps import HttpRequest, Known, Wired
from broker.parameters import invalid
from broker.purchases import Shop

MAX_CHARS = 7_000
_NAMES = frozenset({"shop", "receipt", "product"})


class NewPurchaseView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A receipt: of `app_store` the signed transaction (`jwsRepresentation`), of `play` the purchase token.

    `product` is needed for `play`; an open set of shops.
    """

    shop: str
    receipt: str
    product: str | UnsetType = UNSET


@post("/v1/me/purchases")
async def redeem_purchase(request: HttpRequest, services: Wired, caller: Known) -> Response[BalanceView]:
    """Redeem a receipt; the same one again grants nothing more."""
    order = read_purchase(await read_object(request, services, names=_NAMES))
    is_new = await services.redeeming.redeem(caller.user_id, Shop(order.shop), order.receipt, order.product or "")
    return await answer_balance(services, caller.user_id, is_new=is_new)


def read_purchase(order: dict[str, object]) -> NewPurchaseView:
    """Read the body of a POST; raise InvalidParameter with a pointer."""
    shop, receipt, product = order.get("shop"), _text(order, "receipt"), _text(order, "product")
    if not isinstance(shop, str) or shop not in set(Shop):
        raise invalid("shop", f"is one of {', '.join(Shop)}", at="#")
    if not receipt:
        raise invalid("receipt", "is missing", at="#")
    if shop == Shop.PLAY and not product:
        raise invalid("product", "is missing: the id of what was bought", at="#")
    return NewPurchaseView(shop=shop, receipt=receipt, product=product)


def _text(order: dict[str, object], name: str) -> str:
    # Shops' own ids and signatures are ASCII; what is not cannot stand in an address either.
    found = order.get(name, "")
    if not isinstance(found, str) or not found.isascii() or len(found) > MAX_CHARS:
        raise invalid(name, f"is a text of at most {MAX_CHARS} ASCII characters", at="#")
    return found

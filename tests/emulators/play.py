"""Google Play, emulated: purchases.products of the Android Publisher API, v3, as its reference has them."""

import time

from tests.emulators.base import Answer, Seen, answer_json
from tests.emulators.google import GoogleEmulator

PACKAGE = "example.studio"
PRODUCT = "twenty_credits"
_PURCHASE = "/androidpublisher/v3/applications/{package}/purchases/products/{product}/tokens/{token}"


class PlayEmulator(GoogleEmulator):
    """The API; `bought` are the purchase tokens that it knows, each with what it shows of it."""

    scope = "https://www.googleapis.com/auth/androidpublisher"

    def __init__(self) -> None:
        super().__init__()
        self.bought: dict[str, dict[str, object]] = {}
        self.consumed: list[str] = []
        # A token has no colon, so that what follows one is a verb.
        self.routes |= {
            f"POST {_PURCHASE}:consume": ("consume", self._consume),
            f"GET {_PURCHASE}": ("get", self._get),
        }

    def sell(self, token: str, **changed: object) -> str:
        """Let somebody buy the product; return the purchase token."""
        self.bought[token] = {
            "kind": "androidpublisher#productPurchase",
            "purchaseTimeMillis": str(int(time.time() * 1000)),
            "purchaseState": 0,
            "consumptionState": 0,
            "orderId": f"GPA.{len(self.bought)}",
            "acknowledgementState": 0,
            "regionCode": "TR",
            **changed,
        }
        return token

    async def _get(self, seen: Seen, package: str, product: str, token: str) -> Answer:
        return self._refusal(seen, package, product, token) or answer_json(self.bought[token])

    async def _consume(self, seen: Seen, package: str, product: str, token: str) -> Answer:
        if refusal := self._refusal(seen, package, product, token):
            return refusal
        self.bought[token]["consumptionState"] = 1
        self.consumed.append(token)
        return Answer(status=204)

    def _refusal(self, seen: Seen, package: str, product: str, token: str) -> Answer | None:
        if not self.lets_in(seen):
            return answer_json({"error": {"code": 401, "status": "UNAUTHENTICATED"}}, 401)
        if (package, product) != (PACKAGE, PRODUCT) or token not in self.bought:
            return answer_json({"error": {"code": 404, "message": "The purchase token was not found."}}, 404)
        return None

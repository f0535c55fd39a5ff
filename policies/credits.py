"""What jobs cost their users in credits; without prices everything is free, and no account is looked at."""

from typing import Annotated

import msgspec

from policies.base import Facts, NoObjection, RefusalCode, Refuse

Price = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class Credits(NoObjection, frozen=True, kw_only=True):
    """The price of each operation, 0 where none is named; charged once, when its job has succeeded."""

    prices: dict[str, Price] = msgspec.field(default_factory=dict[str, Price])
    products: dict[str, Price] = msgspec.field(default_factory=dict[str, Price])
    """How many credits one of each product of a shop is worth."""

    def price(self, operation: str) -> int:
        """Return what a job of this operation costs."""
        return self.prices.get(operation, 0)

    def admit(self, facts: Facts) -> Refuse | None:
        """Refuse a job whose user has fewer free credits than it costs."""
        price = self.price(facts.operation)
        if facts.credits is None or facts.credits >= price:
            return None
        reason = f"{facts.operation} costs {price} credits, and {facts.credits} are free"
        return Refuse(code=RefusalCode.CREDITS_REQUIRED, reason=reason)

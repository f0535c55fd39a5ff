"""
What may be wrong with an account, or with whoever asks on an app's behalf.

* NotAllowed
  x OperatorKeyRequired, SecondOperatorRequired, CreditsRequired, CrossSite
* BadRequest
  x InvalidPurchase
* Missing
  x UserNotFound, LinkNotFound, HoldNotFound, BreachNotFound
* Conflict
  x SubjectLinked, HoldConflict, PurchaseUsed
* BrokerError
  x LinksNotSetUp, PurchasesNotSetUp
* Unavailable
  x ShopUnavailable
"""

from http import HTTPStatus

from broker.errors import BadRequest, BrokerError, Conflict, Missing, NotAllowed, Unavailable


class OperatorKeyRequired(NotAllowed):
    """An operator key is needed; `lethe operator-key` makes one."""

    code = "operator_key_required"
    status = HTTPStatus.UNAUTHORIZED


class SecondOperatorRequired(NotAllowed):
    """Who proposed a hold cannot confirm it: another operator's key is needed."""

    code = "second_operator_required"


class CreditsRequired(NotAllowed):
    """The job costs more credits than are free."""

    code = "credits_required"
    status = HTTPStatus.PAYMENT_REQUIRED


class UserNotFound(Missing):
    """There is no user with this id."""

    code = "user_not_found"


class HoldNotFound(Missing):
    """There is no hold with this id."""

    code = "hold_not_found"


class BreachNotFound(Missing):
    """There is no breach with this id."""

    code = "breach_not_found"


class HoldConflict(Conflict):
    """The hold was confirmed by somebody else, has ended, or was not confirmed in time; propose another one."""

    code = "hold_conflict"


class CrossSite(NotAllowed):
    """A session cookie counts only in requests that a page of this very origin sends."""

    code = "cross_site"


class LinkNotFound(Missing):
    """This subject is linked to no user."""

    code = "link_not_found"


class SubjectLinked(Conflict):
    """This subject is linked to another user; ask for a token of that one, or end the link."""

    code = "subject_linked"


class LinksNotSetUp(BrokerError):
    """This server links no sign-ins: LETHE_SUBJECT_KEY_FILE names no key."""

    code = "links_not_set_up"
    status = HTTPStatus.NOT_IMPLEMENTED


class InvalidPurchase(BadRequest):
    """The shop vouches for no such purchase, or it is worth nothing here."""

    code = "invalid_purchase"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class PurchaseUsed(Conflict):
    """Another user has the credits of this purchase."""

    code = "purchase_used"


class PurchasesNotSetUp(BrokerError):
    """This server takes no receipts of this shop."""

    code = "purchases_not_set_up"
    status = HTTPStatus.NOT_IMPLEMENTED


class ShopUnavailable(Unavailable):
    """The shop does not answer; show the receipt again."""

    code = "shop_unavailable"

"""
What may be wrong with an account, or with whoever asks on an app's behalf.

* NotAllowed
  x OperatorKeyRequired, SecondOperatorRequired, CreditsRequired
* Missing
  x UserNotFound, HoldNotFound, BreachNotFound
* Conflict
  x HoldConflict
"""

from http import HTTPStatus

from broker.errors import Conflict, Missing, NotAllowed


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

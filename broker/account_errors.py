"""
What may be wrong with an account, or with whoever asks on an app's behalf.

* NotAllowed
  x OperatorKeyRequired, CreditsRequired
* Missing
  x UserNotFound
"""

from http import HTTPStatus

from broker.errors import Missing, NotAllowed


class OperatorKeyRequired(NotAllowed):
    """An operator key is needed; `lethe operator-key` makes one."""

    code = "operator_key_required"
    status = HTTPStatus.UNAUTHORIZED


class CreditsRequired(NotAllowed):
    """The job costs more credits than are free."""

    code = "credits_required"
    status = HTTPStatus.PAYMENT_REQUIRED


class UserNotFound(Missing):
    """There is no user with this id."""

    code = "user_not_found"

"""
What may be wrong with an account, or with whoever asks on an app's behalf.

* NotAllowed
  x OperatorKeyRequired, CreditsRequired, CrossSite
* Missing
  x UserNotFound, LinkNotFound
* Conflict
  x SubjectLinked
* BrokerError
  x LinksNotSetUp
"""

from http import HTTPStatus

from broker.errors import BrokerError, Conflict, Missing, NotAllowed


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

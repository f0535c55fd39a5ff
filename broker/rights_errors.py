"""
What may be wrong with what a user asks for by right, or because of it.

* NotAllowed
  x Restricted
* Conflict
  x Erasing
* Missing
  x RequestNotFound
"""

from broker.errors import Conflict, Missing, NotAllowed


class Restricted(NotAllowed):
    """The user restricted processing: nothing new is taken in until PUT /v1/me/restriction lifts it."""

    code = "restricted"


class Erasing(Conflict):
    """The user is being erased: nothing new is taken in, and nothing is given out any more."""

    code = "erasing"


class RequestNotFound(Missing):
    """There is no request with this id, or its record was deleted at its time."""

    code = "request_not_found"

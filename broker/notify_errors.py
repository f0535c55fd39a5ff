"""
What may be wrong with where a client wants to be told that its job has ended.

* BadRequest
  x InvalidWebhook, InvalidPushToken, NotificationUnavailable
"""

from http import HTTPStatus

from broker.errors import BadRequest


class InvalidWebhook(BadRequest):
    """A webhook is an https URL on port 443, of a host whose addresses are all public."""

    code = "invalid_webhook"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class InvalidPushToken(BadRequest):
    """An address for push notifications is the name of a service, a colon and the token that it gave the app."""

    code = "invalid_push_token"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class NotificationUnavailable(BadRequest):
    """This server sends no notifications of this kind; send the job without."""

    code = "notification_unavailable"
    status = HTTPStatus.UNPROCESSABLE_ENTITY

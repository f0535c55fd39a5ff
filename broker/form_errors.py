"""
What may be wrong with a body that is JSON or a form, and with the key under which a job is posted.

* BadRequest
  x InvalidJson, InvalidForm, UnexpectedPart, WrongPictureCount, IdempotencyKeyMissing, IdempotencyMismatch
"""

from http import HTTPStatus

from broker.errors import BadRequest


class InvalidJson(BadRequest):
    """The body is not one JSON object without repeated names."""

    code = "invalid_json"


class InvalidForm(BadRequest):
    """The body is not a multipart/form-data that can be read in one way only."""

    code = "invalid_form"


class UnexpectedPart(BadRequest):
    """A form has the part `job`, which is JSON, and after it only parts called `picture`."""

    code = "unexpected_part"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class WrongPictureCount(BadRequest):
    """The operation takes another number of pictures; GET /v1/operations says how many."""

    code = "wrong_picture_count"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class IdempotencyKeyMissing(BadRequest):
    """A POST needs an Idempotency-Key, so that it can be repeated safely."""

    code = "idempotency_key_missing"


class IdempotencyMismatch(BadRequest):
    """This Idempotency-Key was used for another upload or other parameters."""

    code = "idempotency_mismatch"
    status = HTTPStatus.UNPROCESSABLE_ENTITY

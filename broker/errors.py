"""
Every error the broker may show a client.

* BrokerError
  x BadRequest
    + UnknownOperation, InvalidParameter, ParameterInUrl, InvalidHeader, UnsupportedImage, InvalidCursor
    + UploadTooLarge, UploadIncomplete, OutputTooLarge, DeadlineTooShort
  x NotAllowed
    + Unauthenticated, TooManyRequests, Refused
  x Missing
    + JobNotFound, OutputNotFound, OutputGone, OutputLost, ReceiptNotReady, JobSettling
  x Conflict
    + JobConflict, UploadSuperseded, IllegalTransition
  x Unavailable
    + StoreUnavailable, KeyholderUnavailable, BlobsUnavailable, QueueUnavailable, OperationUnavailable, PostureUnmet,
      Closing
  x StillHeld
    + KeyStillHeld, BlobStillHeld, HolderStillAlive

More leaves, by their subject: account_errors.py (of operators too), consent_errors.py, device_errors.py,
form_errors.py, notify_errors.py, rights_errors.py. Messages hold ids and codes, never user content.
"""

from http import HTTPStatus
from typing import ClassVar


class BrokerError(Exception):
    """Something went wrong inside Lethe."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(self, detail: str = "", *, pointer: str = "", retry_after_s: int = 0) -> None:
        super().__init__(detail or (type(self).__doc__ or "").splitlines()[0])
        self.detail = str(self)
        self.pointer = pointer
        self.retry_after_s = retry_after_s


class BadRequest(BrokerError):
    """The request cannot be understood."""

    code = "bad_request"
    status = HTTPStatus.BAD_REQUEST


class UnknownOperation(BadRequest):
    """No operation has this name; GET /v1/operations lists those that have."""

    code = "unknown_operation"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class InvalidParameter(BadRequest):
    """A parameter is unknown, missing or out of range."""

    code = "invalid_parameter"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class ParameterInUrl(BadRequest):
    """Free text never stands in a URL; send it in the Lethe-Parameters header."""

    code = "parameter_in_url"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class InvalidHeader(BadRequest):
    """A header has a value that cannot be read."""

    code = "invalid_header"


class InvalidCursor(BadRequest):
    """The cursor was not made by this server; start the list again without one."""

    code = "invalid_cursor"


class UnsupportedImage(BadRequest):
    """The body is not a JPEG, PNG, WebP or HEIC image."""

    code = "unsupported_image"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class UploadTooLarge(BadRequest):
    """The body is larger than this server takes."""

    code = "upload_too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UploadIncomplete(BadRequest):
    """The body stopped before its end; nothing was kept, send it again under the same id."""

    code = "upload_incomplete"


class OutputTooLarge(BadRequest):
    """The output would have more pixels than this server makes."""

    code = "output_too_large"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class DeadlineTooShort(BadRequest):
    """The work would take longer than the deadline allows."""

    code = "deadline_too_short"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class NotAllowed(BrokerError):
    """The request is understood and not allowed."""

    code = "not_allowed"
    status = HTTPStatus.FORBIDDEN


class Unauthenticated(NotAllowed):
    """A bearer token is needed; POST /v1/users makes one."""

    code = "unauthenticated"
    status = HTTPStatus.UNAUTHORIZED


class TooManyRequests(NotAllowed):
    """A limit is reached; wait and send the request again."""

    code = "too_many_requests"
    status = HTTPStatus.TOO_MANY_REQUESTS


class Refused(NotAllowed):
    """A policy of this server refuses the job."""

    code = "refused"


class Missing(BrokerError):
    """There is nothing under this address."""

    code = "not_found"
    status = HTTPStatus.NOT_FOUND


class JobNotFound(Missing):
    """This user has no job with this id."""

    code = "job_not_found"


class OutputNotFound(Missing):
    """The job has no output with this number."""

    code = "output_not_found"


class OutputGone(Missing):
    """The output was destroyed."""

    code = "output_gone"
    status = HTTPStatus.GONE


class OutputLost(Missing):
    """The output or its key is lost, so that nobody can open it; the job is not charged."""

    code = "output_lost"
    status = HTTPStatus.GONE


class ReceiptNotReady(Missing):
    """The receipt comes with the final state; wait for it."""

    code = "receipt_not_ready"
    status = HTTPStatus.CONFLICT


class JobSettling(Missing):
    """The upload is being destroyed; outputs are served once that is done."""

    code = "settling"
    status = HTTPStatus.CONFLICT


class Conflict(BrokerError):
    """The request does not fit what is already there."""

    code = "conflict"
    status = HTTPStatus.CONFLICT


class JobConflict(Conflict):
    """This id was used for another upload or other parameters."""

    code = "job_conflict"


class UploadSuperseded(Conflict):
    """A later upload under the same id took over."""

    code = "upload_superseded"


class IllegalTransition(Conflict):
    """The job is no longer in a state, or under a fence, that allows this."""

    code = "illegal_transition"


class Unavailable(BrokerError):
    """A part that this needs does not answer; nothing was kept, try again."""

    code = "unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, detail: str = "", *, pointer: str = "", retry_after_s: int = 2) -> None:
        super().__init__(detail, pointer=pointer, retry_after_s=retry_after_s)


class StoreUnavailable(Unavailable):
    """Postgres does not answer; nothing was kept, try again."""

    code = "store_unavailable"


class KeyholderUnavailable(Unavailable):
    """The keyholder does not answer; nothing was kept, try again."""

    code = "keyholder_unavailable"


class BlobsUnavailable(Unavailable):
    """The blob store does not answer; nothing was kept, try again."""

    code = "blobs_unavailable"


class QueueUnavailable(Unavailable):
    """Redis does not answer; nothing was kept, try again."""

    code = "queue_unavailable"


class OperationUnavailable(Unavailable):
    """No worker that can run this operation is alive right now."""

    code = "operation_unavailable"


class PostureUnmet(Unavailable):
    """This deployment is not what its profile demands; nothing is taken in until it is."""

    code = "posture_unmet"


class Closing(Unavailable):
    """This server is shutting down; try again."""

    code = "closing"


class StillHeld(BrokerError):
    """Something of an upload is still there; the job cannot become final."""

    code = "still_held"


class KeyStillHeld(StillHeld):
    """The keyholder says that it still has a key that it was told to shred."""

    code = "key_still_held"


class BlobStillHeld(StillHeld):
    """The blob store still shows a blob that it was told to delete."""

    code = "blob_still_held"


class HolderStillAlive(StillHeld):
    """A process that held the upload has neither let go nor lost its lease."""

    code = "holder_still_alive"

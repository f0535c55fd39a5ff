"""
What may be wrong with a consent, or for want of one.

* NotAllowed
  x ConsentRequired, UnderAge
* BadRequest
  x UnknownNotice, UnknownLanguage
"""

from http import HTTPStatus

from broker.errors import BadRequest, NotAllowed


class ConsentRequired(NotAllowed):
    """This server takes a job only from who agrees to its notice; `notice_version` and `purposes` say to what."""

    code = "consent_required"

    def __init__(self, detail: str = "", *, notice: str = "", purposes: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.notice = notice
        self.purposes = purposes


class UnderAge(NotAllowed):
    """This server is not for users of this age; nothing was kept."""

    code = "under_age"


class UnknownNotice(BadRequest):
    """There is no notice of this version to agree to; GET /v1/privacy/notice has those that there are."""

    code = "unknown_notice"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class UnknownLanguage(BadRequest):
    """The notice is not there in this language."""

    code = "unknown_language"
    status = HTTPStatus.UNPROCESSABLE_ENTITY

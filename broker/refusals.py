"""Turns a policy's refusal, which is a value, into the error that a client sees."""

from broker.account_errors import CreditsRequired
from broker.consent_errors import ConsentRequired
from broker.device_errors import DeviceKeyRequired
from broker.errors import (
    BrokerError,
    DeadlineTooShort,
    OutputTooLarge,
    Refused,
    TooManyRequests,
    UnsupportedImage,
    UploadTooLarge,
)
from broker.rights_errors import Erasing, Restricted
from policies.base import RefusalCode, Refuse

ERRORS: dict[RefusalCode, type[BrokerError]] = {
    RefusalCode.UPLOAD_TOO_LARGE: UploadTooLarge,
    RefusalCode.UNSUPPORTED_IMAGE: UnsupportedImage,
    RefusalCode.OUTPUT_TOO_LARGE: OutputTooLarge,
    RefusalCode.DEADLINE_TOO_SHORT: DeadlineTooShort,
    RefusalCode.TOO_MANY_REQUESTS: TooManyRequests,
    RefusalCode.CREDITS_REQUIRED: CreditsRequired,
    RefusalCode.DEVICE_KEY_REQUIRED: DeviceKeyRequired,
    RefusalCode.RESTRICTED: Restricted,
    RefusalCode.ERASING: Erasing,
    RefusalCode.REFUSED: Refused,
}


def refused(refusal: Refuse) -> BrokerError:
    """Return the error for a refusal."""
    if refusal.code is RefusalCode.CONSENT_REQUIRED:
        return ConsentRequired(refusal.reason, notice=refusal.notice, purposes=refusal.purposes)
    return ERRORS[refusal.code](refusal.reason, pointer=refusal.pointer, retry_after_s=refusal.retry_after_s)

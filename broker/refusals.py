"""Turns a policy's refusal, which is a value, into the error that a client sees."""

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
from policies.base import RefusalCode, Refuse

ERRORS: dict[RefusalCode, type[BrokerError]] = {
    RefusalCode.UPLOAD_TOO_LARGE: UploadTooLarge,
    RefusalCode.UNSUPPORTED_IMAGE: UnsupportedImage,
    RefusalCode.OUTPUT_TOO_LARGE: OutputTooLarge,
    RefusalCode.DEADLINE_TOO_SHORT: DeadlineTooShort,
    RefusalCode.TOO_MANY_REQUESTS: TooManyRequests,
    RefusalCode.DEVICE_KEY_REQUIRED: DeviceKeyRequired,
    RefusalCode.REFUSED: Refused,
}


def refused(refusal: Refuse) -> BrokerError:
    """Return the error for a refusal."""
    return ERRORS[refusal.code](refusal.reason, pointer=refusal.pointer, retry_after_s=refusal.retry_after_s)

"""
What goes wrong with a picture. Messages hold codes, never content.

* ImagesError
  x InvalidImage (code: ImageFault): the upload is not a picture that Lethe takes
  x EncodingFailed (code: ImageFault): an output could not be made, or would have carried more than pixels
  x SandboxUnavailable: this machine cannot fence a decoder in; nothing is decoded
"""

from enum import StrEnum


class ImageFault(StrEnum):
    """Why a picture was refused."""

    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    TOO_MANY_PIXELS = "too_many_pixels"
    DECODER_FAILED = "decoder_failed"
    DECODER_KILLED = "decoder_killed"  # by the sandbox, a limit, or the kernel
    TIMEOUT = "timeout"
    ENCODER_FAILED = "encoder_failed"
    NOT_A_VIDEO = "not_a_video"
    NOT_CLEAN = "not_clean"  # the output holds a segment that is not on the allow-list


class ImagesError(Exception):
    """Root of what handling a picture raises."""


class InvalidImage(ImagesError):
    """The upload cannot be decoded; `code` says why, as far as it may be told."""

    def __init__(self, code: ImageFault) -> None:
        super().__init__(str(code))
        self.code = code


class EncodingFailed(ImagesError):
    """The output cannot be encoded; `code` says why."""

    def __init__(self, code: ImageFault) -> None:
        super().__init__(str(code))
        self.code = code


class SandboxUnavailable(ImagesError):
    """The kernel or the machine type offers no system call filter that Lethe knows."""

"""What apps report of themselves: a closed list of events, counted at once and kept nowhere; nobody's in particular."""

from enum import StrEnum
from typing import Annotated

import msgspec


class AppEvent(StrEnum):
    """What may be reported."""

    CRASH = "crash"
    HANG = "hang"
    START = "start"
    UPLOAD = "upload"
    UPLOAD_FAILED = "upload_failed"
    DOWNLOAD = "download"
    DOWNLOAD_FAILED = "download_failed"
    OPEN_FAILED = "open_failed"  # a sealed output that could not be opened


class Platform(StrEnum):
    """Where the app runs."""

    IOS = "ios"
    ANDROID = "android"
    WEB = "web"


class AppReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event of one app; an unknown word or field is refused, so that nothing else can come along."""

    event: AppEvent
    platform: Platform
    duration_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] | None = None

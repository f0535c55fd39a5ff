"""What fal says of errors and cancels, and the failures that come of it; the vocabulary of the adapter in fal.py."""

from collections.abc import Collection

import msgspec

from providers import calls
from providers.calls import Reply
from providers.failures import FailureKind, ProviderFailure

CLIENT_CLOSED = 499

KINDS: dict[str, FailureKind] = {
    **dict.fromkeys(("request_timeout", "startup_timeout", "generation_timeout"), FailureKind.TIMEOUT),
    **dict.fromkeys(("client_disconnected", "client_cancelled"), FailureKind.CANCELED),
    **{f"runner_{name}": FailureKind.OVERLOADED for name in ("scheduling_failure", "connection_timeout")},
    **{f"runner_{name}": FailureKind.OVERLOADED for name in ("disconnected", "connection_refused", "connection_error")},
    **{f"runner_{name}": FailureKind.PROVIDER_ERROR for name in ("incomplete_response", "server_error")},
    **dict.fromkeys(("internal_error", "internal_server_error"), FailureKind.PROVIDER_ERROR),
    **dict.fromkeys(("downstream_service_error", "file_download_error"), FailureKind.PROVIDER_ERROR),
    "downstream_service_unavailable": FailureKind.OVERLOADED,
    "content_policy_violation": FailureKind.CONTENT_REJECTED,
    "no_media_generated": FailureKind.BAD_OUTPUT,
    "bad_request": FailureKind.INVALID_INPUT,
}
"""What fal's own names of errors mean; for any other the status speaks."""


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """One complaint of a model about its input."""

    type: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer may say of a cancel or an error, in both of fal's forms."""

    status: str = ""
    error_type: str = ""
    detail: tuple[Detail, ...] | str | None = None


def refused(
    reply: Reply,
    kind: FailureKind | None = None,
    *,
    hint: str = "",
    is_result: bool = False,
    believed: Collection[FailureKind] | None = None,
) -> ProviderFailure:
    """
    Make the failure of an error answer from fal's own name of it, which is told only where it is a known one.

    `believed` as in calls.refused.
    """
    told = told_by(reply)
    details = told.detail if isinstance(told.detail, tuple) else ()
    names = (reply.headers.get("x-fal-error-type", ""), told.error_type, *(one.type for one in details), hint)
    name = next((name for name in names if name in KINDS), "")
    if name:
        return calls.refused(reply, KINDS[name], detail=name, believed=believed)
    if isinstance(told.detail, str) and "exhausted balance" in told.detail.lower():
        return calls.refused(reply, FailureKind.PAYMENT, believed=believed)
    if reply.status == CLIENT_CLOSED:
        return calls.refused(reply, FailureKind.CANCELED, believed=believed)
    # What speaks of itself is the model's own error; a bare one comes from a gateway, and says nothing of the attempt.
    is_own = is_result and told.detail is not None
    return calls.refused(reply, kind or (calls.kind_of(reply.status) if is_own else None), believed=believed)


def told_by(reply: Reply) -> Told:
    """Read what an answer says; nothing where it is in no form of fal's."""
    try:
        return msgspec.json.decode(reply.body, type=Told)
    except calls.UNREADABLE:
        return Told()

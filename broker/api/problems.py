"""Turns whatever went wrong into RFC 9457 problem details; nothing of a request's content is repeated in them."""

import re
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Response
from litestar.exceptions import HTTPException, ValidationException
from msgspec import UNSET, UnsetType
from structlog.contextvars import get_contextvars

from broker.api.deps import HttpRequest
from broker.consent_errors import ConsentRequired
from broker.errors import BrokerError, InvalidParameter, Unauthenticated, Unavailable, UnsupportedImage

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
ACCEPTED_IMAGES = "image/jpeg, image/png, image/webp, image/heic"

FRAMEWORK_CODES: dict[int, tuple[str, str]] = {
    400: ("bad_request", "The request cannot be understood."),
    404: ("not_found", "There is nothing under this address."),
    405: ("method_not_allowed", "This address does not know this method."),
    413: ("upload_too_large", "The body is larger than this server takes."),
    415: ("unsupported_media_type", "This address does not take this kind of body."),
    416: ("range_not_satisfiable", "The range lies beyond the end of the output."),
}
"""Code and title of what the framework refuses by itself, by status."""

_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a request that is wrong."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong (RFC 9457); `code` is stable, the words are not."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    retry_after: int | UnsetType = UNSET
    errors: list[Fault] | UnsetType = UNSET
    notice_version: str | UnsetType = UNSET
    """Where consent is missing: to this version of the notice,"""
    purposes: list[str] | UnsetType = UNSET
    """for these purposes."""


def answer_exception(request: HttpRequest, exc: Exception) -> Response[bytes]:
    """Answer an exception of any kind; the framework calls it."""
    if isinstance(exc, HTTPException) and exc.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return _answer_framework(exc)
    error = _as_ours(exc)
    if error.code == BrokerError.code:
        log.error("request_failed", exc_info=exc)
    faults = [Fault(pointer=error.pointer, detail=error.detail)] if error.pointer else []
    return respond(error, headers=_headers_of(request, error), faults=faults)


def respond(error: BrokerError, *, headers: dict[str, str] | None = None, faults: list[Fault]) -> Response[bytes]:
    """Answer one of our own errors."""
    problem = Problem(
        type=type_of(error.code),
        title=(type(error).__doc__ or "").splitlines()[0],
        status=int(error.status),
        detail=error.detail,
        instance=instance_of(),
        code=error.code,
        retry_after=error.retry_after_s or UNSET,
        errors=faults or UNSET,
        **_wanted(error),
    )
    return _response(problem, headers or {})


def _wanted(error: BrokerError) -> dict[str, Any]:
    """Say what has to be agreed to."""
    if not isinstance(error, ConsentRequired):
        return {}
    return {"notice_version": error.notice, "purposes": list(error.purposes) or UNSET}


def type_of(code: str) -> str:
    """Return the URI that names a kind of problem."""
    return f"urn:lethe:problem:{code}"


def instance_of() -> str:
    """Return the URI that names this occurrence: the request's own random id."""
    return f"urn:lethe:request:{get_contextvars().get('request_id', 'unknown')}"


def _as_ours(exc: Exception) -> BrokerError:
    if isinstance(exc, BrokerError):
        return exc
    return Unavailable() if isinstance(exc, TimeoutError) else BrokerError()


def _headers_of(request: HttpRequest, error: BrokerError) -> dict[str, str]:
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    if isinstance(error, Unauthenticated):
        was_given = "authorization" in request.headers
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if was_given else "Bearer"
    if isinstance(error, UnsupportedImage):
        headers["Accept"] = ACCEPTED_IMAGES
    return headers


def _answer_framework(exc: HTTPException) -> Response[bytes]:
    if isinstance(exc, ValidationException):
        faults = _faults_of(exc)
        return respond(InvalidParameter(faults[0].detail), faults=faults)
    status = exc.status_code if exc.status_code in FRAMEWORK_CODES else HTTPStatus.BAD_REQUEST
    code, title = FRAMEWORK_CODES[status]
    problem = Problem(
        type=type_of(code), title=title, status=int(status), detail=title, instance=instance_of(), code=code
    )
    return _response(problem, dict(exc.headers or {}))


def _faults_of(exc: ValidationException) -> list[Fault]:
    # The framework's own words may quote what was sent; its keys are the names that we declared.
    extra: object = exc.extra
    named: list[dict[str, str]] = []
    if isinstance(extra, list):
        named = msgspec.convert([item for item in extra if isinstance(item, dict)], list[dict[str, str]])
    keys = [item.get("key", "") for item in named]
    faults = [
        Fault(pointer=f"#/parameters/{key}", detail=f"{key} is out of range")
        for key in keys
        if _PLAIN_NAME.fullmatch(key)
    ]
    return faults or [Fault(pointer="#/parameters", detail="a parameter is out of range")]


def _response(problem: Problem, headers: dict[str, str]) -> Response[bytes]:
    return Response(msgspec.json.encode(problem), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)

"""What an HTTP answer says of one try."""

from http import HTTPStatus

import httpx

from broker.notifications import Answer, Told

MOST_AFTER_S = 3_600.0
"""Longer than this nobody may ask us to wait."""


def read_answer(response: httpx.Response, *, gone: int, refused: tuple[int, ...] = ()) -> Answer:
    """Read the status alone, and Retry-After in seconds; the body is theirs. A redirect is a failure."""
    if response.is_success:
        return Answer(told=Told.DELIVERED)
    if response.status_code == gone:
        return Answer(told=Told.GONE)
    if response.status_code in refused:
        return Answer(told=Told.REFUSED)
    return Answer(told=Told.FAILED, after_s=_after_s(response))


def _after_s(response: httpx.Response) -> float:
    asked = response.headers.get("retry-after", "")
    is_meant = response.status_code in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
    return min(float(asked), MOST_AFTER_S) if is_meant and asked.isascii() and asked.isdecimal() else 0.0

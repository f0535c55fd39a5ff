"""Places in a list of outputs, or in the audit record, as a client carries them from page to page."""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from uuid import UUID

from broker.errors import InvalidCursor
from broker.store.outputs import Position

_POSITION = struct.Struct(">q16sI")
_ID = struct.Struct(">q")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LARGEST_N = 2**31 - 1


def cursor_of(position: Position) -> str:
    """Write a place in a list; it says nothing that the list does not."""
    at_us = (position.finalized_at - _EPOCH) // _MICROSECOND
    return urlsafe_b64encode(_POSITION.pack(at_us, position.job_id.bytes, position.n)).rstrip(b"=").decode()


def read_cursor(cursor: str) -> Position:
    """Read a place in a list; raise InvalidCursor."""
    try:
        at_us, job_id, n = _POSITION.unpack(urlsafe_b64decode(cursor + "=="))
        return Position(finalized_at=_EPOCH + at_us * _MICROSECOND, job_id=UUID(bytes=job_id), n=min(n, _LARGEST_N))
    except (ValueError, OverflowError, struct.error) as exc:
        raise InvalidCursor from exc


def place_of(event_id: int) -> str:
    """Write a place in the record."""
    return urlsafe_b64encode(_ID.pack(event_id)).rstrip(b"=").decode()


def read_place(cursor: str) -> int:
    """Read a place in the record; raise InvalidCursor."""
    try:
        (event_id,) = _ID.unpack(urlsafe_b64decode(cursor + "=="))
    except (ValueError, struct.error) as exc:
        raise InvalidCursor from exc
    return int(event_id)

"""
The export: everything that is held about a user, as one JSON document that is made while it is sent.

Nothing of it is kept, and no more than a page of it is ever in memory. docs/export.schema.json describes it.
"""

from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from broker.receipts import whole_seconds
from broker.rights import Request
from broker.rights_errors import Erasing
from broker.store.held import OF_USER, HeldStore, HeldUser

SCHEMA = "urn:lethe:export:v1"


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """Columns that are not in the export, and why."""

    columns: tuple[str, ...]
    reason: str


WITHHELD = (
    Withheld(
        columns=(
            *("users.token_hash", "jobs.fingerprint", "attempts.hook_hash", "links.subject", "link_tokens.hash"),
            *("link_tokens.subject", "sessions.hash", "sessions.subject"),
        ),
        reason="recognises a token, a sign-in or a repeated request, by a digest that says nothing else",
    ),
    Withheld(
        columns=("requests.operator", "holds.proposed_by", "holds.confirmed_by", "holds.ended_by"),
        reason="names of operators: about others, and in the record of what was done",
    ),
    Withheld(
        columns=("users.subject", "audit_events.subject"),
        reason="joins a user to the record of what was done: nobody else has it, so that it leads nowhere once erased",
    ),
    Withheld(
        columns=(
            *("uploads.blob", "uploads.key_id", "uploads.incarnation", "outputs.blob", "outputs.key_id"),
            *(
                "outputs.keyholder",
                "outputs.incarnation",
                "outputs.thumbnail",
                "custody.ref",
                "custody.detail",
                "attempts.handle",
            ),
        ),
        reason="names of ciphertext, of keys and of orders at providers: whoever has the export must not reach content",
    ),
    Withheld(
        columns=(
            *("jobs.id", "jobs.fence", "jobs.owner", "jobs.settling_until", "custody.id", "custody.fence"),
            *("attempts.after_s", "jobs.erased_by"),
        ),
        reason="which of our processes acts on a row, and when again; nothing about the user",
    ),
)


async def export(held: HeldStore, user: HeldUser, request: Request) -> AsyncGenerator[bytes, None]:
    """Yield the document; raise Erasing in the middle, so that it breaks off, when the user is erased meanwhile."""
    head: dict[str, Any] = {
        "schema": SCHEMA,
        "request": request.id,
        "generated_at": datetime.now(UTC),
        "withheld": WITHHELD,
        "user": msgspec.structs.asdict(user),
    }
    yield _encoded(head)[:-1]
    lists = {**{name: held.pages(name, user.id) for name in OF_USER}, "jobs": held.jobs(user.id)}
    for name, pages in lists.items():
        separator = b',"' + name.encode() + b'":['
        async for page in pages:
            yield separator + _encoded(page)[1:-1]
            separator = b","
            await _require(held, user.id)
        yield b"]" if separator == b"," else separator + b"]"
    await _require(held, user.id)
    yield b',"is_complete":true}\n'


async def _require(held: HeldStore, user_id: str) -> None:
    now = await held.user(user_id)
    if now is None or now.erasing_at is not None:
        raise Erasing


def _encoded(value: object) -> bytes:
    return msgspec.json.encode(_plain(value))


def _plain(value: object) -> object:
    """Leave out what is null, and cut times to the second, as everywhere in the API."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return {name: _plain(inner) for name, inner in items if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in cast("list[object]", value)]
    return whole_seconds(value) if isinstance(value, datetime) else value

"""What a privacy engineer asks for: the keys with which receipts are verified, and what is true here."""

import msgspec
from litestar import Response, get

from broker.api.deps import Wired
from broker.api.views import Moment, whole_second


class ReceiptKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key in the form of C2SP signed-note (`vkey`), and when it was first and last taken into use."""

    vkey: str
    is_current: bool
    first_used_at: Moment
    last_used_at: Moment


class ReceiptKeysView(msgspec.Struct, frozen=True, kw_only=True):
    """Every key that signed a receipt, the current one first."""

    items: list[ReceiptKeyView]


@get("/v1/privacy/keys")
async def list_receipt_keys(services: Wired) -> ReceiptKeysView:
    """List the keys that verify receipts."""
    keys = await services.stores.receipts.keys()
    items = [
        ReceiptKeyView(
            vkey=key.vkey,
            is_current=key.vkey == services.signer.vkey,
            first_used_at=whole_second(key.first_used_at),
            last_used_at=whole_second(key.last_used_at),
        )
        for key in keys
    ]
    return ReceiptKeysView(items=sorted(items, key=lambda item: not item.is_current))


@get("/v1/privacy/posture")
async def get_posture(services: Wired) -> Response[str]:
    """State what is true of this deployment, as a signed note."""
    note = await services.watch.note()
    return Response(note, media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-store"})

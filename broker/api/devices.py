"""Devices of a user over HTTP: public keys to which outputs are sealed, and what each of them cannot open yet."""

from datetime import date
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath, QueryParameter
from msgspec import UNSET, UnsetType

from broker.api.bodies import bytes_of, read_object
from broker.api.cursors import cursor_of, read_cursor
from broker.api.deps import Caller, HttpRequest, Known, Wired
from broker.api.jobs import MAX_PAGE
from broker.crypto.sealed import DeviceKeyUnusable, check_public_key
from broker.device_errors import DeviceNotFound, InvalidDeviceKey
from broker.devices import PUBLIC_KEY_BYTES, Device, Kem
from broker.services import Services

_NAMES = frozenset({"kem", "public_key"})


class NewDeviceView(msgspec.Struct, frozen=True, kw_only=True):
    """A public key that a device made. `kem` is `x25519` (32 bytes), `p256` (65) or `xwing` (1216)."""

    kem: str
    public_key: bytes


class DeviceView(msgspec.Struct, frozen=True, kw_only=True):
    """A device: its public key under an id of ours. `kem` is an open set."""

    id: UUID
    kem: str
    public_key: bytes
    created_on: date


class DeviceListView(msgspec.Struct, frozen=True, kw_only=True):
    """A user's devices, oldest first."""

    items: list[DeviceView]


class MissingView(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed output that the device cannot open yet."""

    job_id: UUID
    n: int


class MissingPageView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a device cannot open yet, newest first; without `next` there is no more."""

    items: list[MissingView]
    next: str | UnsetType = UNSET


@post("/v1/me/devices")
async def add_device(request: HttpRequest, *, services: Wired, caller: Known) -> Response[DeviceView]:
    """Register a public key; the same key again gets the same device."""
    found = await read_object(request, services, names=_NAMES)
    kem = _kem_of(found.get("kem"))
    public_key = bytes_of(found, "public_key")
    try:
        check_public_key(kem, public_key)
    except DeviceKeyUnusable as exc:
        detail = f"a {kem} key has {PUBLIC_KEY_BYTES[kem]} bytes, and is a point of its curve"
        raise InvalidDeviceKey(detail, pointer="#/public_key") from exc
    device, is_new = await services.stores.devices.add(caller.user_id, kem, public_key)
    return Response(_view(device), status_code=201 if is_new else 200)


@get("/v1/me/devices")
async def list_devices(*, services: Wired, caller: Known) -> DeviceListView:
    """List a user's devices."""
    return DeviceListView(items=[_view(device) for device in await services.stores.devices.of_user(caller.user_id)])


@delete("/v1/me/devices/{device_id:uuid}", status_code=204)
async def delete_device(device_id: FromPath[UUID], *, services: Wired, caller: Known) -> None:
    """Forget a device, and all that was wrapped to it; what no other device can open, nobody can from then on."""
    if not await services.stores.devices.delete(caller.user_id, device_id):
        raise DeviceNotFound


@get("/v1/me/devices/{device_id:uuid}/missing")
async def list_missing(
    device_id: FromPath[UUID],
    *,
    services: Wired,
    caller: Known,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str, QueryParameter(max_length=64)] = "",
) -> MissingPageView:
    """List what a device cannot open yet, for another one that can."""
    await require_device(services, caller, device_id)
    before = read_cursor(cursor) if cursor else None
    found = await services.stores.outputs.missing(caller.user_id, device=device_id, before=before, limit=limit + 1)
    items = [MissingView(job_id=position.job_id, n=position.n) for position in found[:limit]]
    return MissingPageView(items=items, next=cursor_of(found[limit - 1]) if len(found) > limit else UNSET)


async def require_device(services: Services, caller: Caller, device_id: UUID) -> Device:
    """Return a device of this user; raise DeviceNotFound, for another user's too."""
    devices = await services.stores.devices.of_user(caller.user_id)
    device = next((device for device in devices if device.id == device_id), None)
    if device is None:
        raise DeviceNotFound
    return device


def _kem_of(given: object) -> Kem:
    kem = next((kem for kem in Kem if kem == given), None)
    if kem is None:
        raise InvalidDeviceKey(f"kem is one of {', '.join(Kem)}", pointer="#/kem")
    return kem


def _view(device: Device) -> DeviceView:
    return DeviceView(id=device.id, kem=device.kem.value, public_key=device.public_key, created_on=device.created_on)

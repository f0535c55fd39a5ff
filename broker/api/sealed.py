"""Sealed outputs over HTTP: what opens them on which device, and their thumbnails."""

from uuid import UUID

import msgspec
from litestar import HttpMethod, get, put, route
from litestar.di import NamedDependency
from litestar.params import FromPath

from broker.api.bodies import bytes_of, read_object
from broker.api.deps import Caller, HttpRequest, Known, Wired
from broker.api.devices import require_device
from broker.api.jobs import find_job
from broker.api.outputs import Blob, sealed_response
from broker.api.serving import Disclosures, OutputResponse, servable
from broker.device_errors import InvalidDeviceKey, OutputNotSealed
from broker.devices import WRAPPED_KEY_BYTES
from broker.errors import OutputNotFound
from broker.jobs import Job, Output
from broker.services import Services

_NAMES = frozenset({"wrapped_key"})


class NewOutputKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """The key of an output, wrapped by a device that can open it to one that cannot yet."""

    wrapped_key: bytes


class OutputKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """The key of an output and its thumbnail as one device opens it: HPKE's `enc`, then its ciphertext."""

    device_id: UUID
    kem: str
    wrapped_key: bytes


class OutputKeysView(msgspec.Struct, frozen=True, kw_only=True):
    """What opens an output, device by device."""

    items: list[OutputKeyView]


@get("/v1/jobs/{job_id:uuid}/outputs/{n:int}/keys")
async def list_output_keys(
    job_id: FromPath[UUID], n: FromPath[int], *, services: Wired, caller: Known
) -> OutputKeysView:
    """Show what opens an output, device by device."""
    job, _ = await _sealed(services, caller, job_id, n)
    keys = await services.stores.outputs.keys(job.id, n)
    return OutputKeysView(
        items=[OutputKeyView(device_id=key.device_id, kem=key.kem.value, wrapped_key=key.wrapped) for key in keys]
    )


@put("/v1/jobs/{job_id:uuid}/outputs/{n:int}/keys/{device_id:uuid}", status_code=204)
async def put_output_key(
    job_id: FromPath[UUID],
    n: FromPath[int],
    device_id: FromPath[UUID],
    request: HttpRequest,
    *,
    services: Wired,
    caller: Known,
) -> None:
    """Let one more device open an output; where it can already nothing changes, so that this may be repeated."""
    job, _ = await _sealed(services, caller, job_id, n)
    device = await require_device(services, caller, device_id)
    wrapped = bytes_of(await read_object(request, services, names=_NAMES), "wrapped_key")
    if len(wrapped) != WRAPPED_KEY_BYTES[device.kem]:
        detail = f"a key wrapped to a {device.kem} device has {WRAPPED_KEY_BYTES[device.kem]} bytes"
        raise InvalidDeviceKey(detail, pointer="#/wrapped_key")
    await services.stores.outputs.add_key(job.id, n, device_id, wrapped)


@route("/v1/jobs/{job_id:uuid}/outputs/{n:int}/thumbnail", http_method=[HttpMethod.GET, HttpMethod.HEAD])
async def get_thumbnail(
    job_id: FromPath[UUID],
    n: FromPath[int],
    request: HttpRequest,
    *,
    services: Wired,
    caller: Known,
    disclosures: NamedDependency[Disclosures],
) -> OutputResponse:
    """Serve the ciphertext of a thumbnail: a JPEG of 256 pixels at most, sealed under the key of its output."""
    job, output = await _sealed(services, caller, job_id, n)
    if not output.thumbnail:
        raise OutputNotFound("this output has no thumbnail")
    blob = Blob(name=output.thumbnail, plaintext_bytes=output.thumbnail_bytes, is_whole=False)
    return sealed_response(services, disclosures, request, job=job, output=output, blob=blob)


async def _sealed(services: Services, caller: Caller, job_id: UUID, n: int) -> tuple[Job, Output]:
    job = await find_job(services, caller, job_id)
    output = await servable(services, job, n)
    if not output.is_sealed:
        raise OutputNotSealed
    return job, output

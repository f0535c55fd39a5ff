"""Seals what a job made to the devices of its user: ciphertext in the blob store, its key with them alone."""

from collections.abc import Sequence

from broker.crypto.chunked import KEY_BYTES, Encryptor
from broker.crypto.sealed import output_context, thumbnail_context, wrap_key
from broker.custody import Holder, NewCopy, What
from broker.devices import Device
from broker.jobs import Job, Output
from broker.secret_memory import random_into, wipe
from broker.store.blobs import new_name
from broker.store.stores import Stores
from workers.outcomes import Stopped, failed
from workers.outputs import Made, ciphertext

THUMBNAIL_SIDE = 256
THUMBNAIL_QUALITY = 80


async def seal_output(stores: Stores, job: Job, made: Made, *, n: int, thumbnail: memoryview | None) -> Output:
    """
    Encrypt one output, and its thumbnail, under a key that is wrapped to every device of the user and then wiped.

    The keyholder never has it, so that nothing of ours opens what is kept. Raises Stopped where there is no device.
    """
    assert job.user_id is not None  # a job loses its user only when nothing of it is open
    devices = await stores.devices.of_user(job.user_id)
    if not devices:
        raise Stopped(failed("device_key_required"))
    blob, small = new_name(), new_name() if thumbnail is not None else ""
    names = [name for name in (blob, small) if name]
    await stores.custody.open(job, [NewCopy(holder=Holder.BLOB, what=What.OUTPUT, ref=name) for name in names])
    key = bytearray(KEY_BYTES)
    random_into(key)
    try:
        await stores.blobs.put(blob, ciphertext(Encryptor(key, context=output_context(job.public_id, n)), made.data))
        if thumbnail is not None:
            encryptor = Encryptor(key, context=thumbnail_context(job.public_id, n))
            await stores.blobs.put(small, ciphertext(encryptor, thumbnail))
        return _sealed(job, made, n=n, blob=blob, small=small, thumbnail=thumbnail, key=key, devices=devices)
    finally:
        wipe(key)


def _sealed(
    job: Job,
    made: Made,
    *,
    n: int,
    blob: str,
    small: str,
    thumbnail: memoryview | None,
    key: bytearray,
    devices: Sequence[Device],
) -> Output:
    return Output(
        n=n,
        blob=blob,
        key_id=b"",
        keyholder="",
        incarnation=b"",
        media_type=made.media_type,
        size_bytes=len(made.data),
        width=made.width,
        height=made.height,
        destroyed_at=None,
        is_sealed=True,
        thumbnail=small,
        thumbnail_bytes=0 if thumbnail is None else len(thumbnail),
        wrapped=tuple(wrap_key(key, device, job=job.public_id, n=n) for device in devices),
    )

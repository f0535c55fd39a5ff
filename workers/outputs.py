"""Keeps what a job made: custody rows first, then ciphertext, then its key."""

from collections.abc import AsyncIterator

import msgspec

from broker.crypto.chunked import KEY_BYTES, Encryptor
from broker.custody import Holder, NewCopy, What
from broker.errors import KeyholderUnavailable
from broker.jobs import Job, Output
from broker.secret_memory import random_into, wipe
from broker.store.blobs import CHUNK_BYTES, new_name
from broker.store.keys import PutAnswer
from broker.store.stores import Stores
from broker.submission import new_key_id

SETTLE_MARGIN_S = 60
"""An output lives from the final state, its key from now; the sweep shreds it at the end of the output's time."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A finished output in memory, about to be encrypted."""

    data: memoryview
    media_type: str
    width: int
    height: int


async def keep_output(stores: Stores, job: Job, made: Made, *, n: int, lifetime_s: int) -> Output:
    """Encrypt one output into the blob store; its key lives as long as the output may."""
    blob, key_id = new_name(), new_key_id()
    kept_at = await stores.keys.pick()
    await stores.custody.open(
        job,
        [
            NewCopy(holder=Holder.BLOB, what=What.OUTPUT, ref=blob),
            NewCopy(holder=Holder.KEY, what=What.OUTPUT, ref=key_id.hex(), detail=kept_at.detail),
        ],
    )
    key = bytearray(KEY_BYTES)
    random_into(key)
    try:
        await stores.blobs.put(blob, ciphertext(Encryptor(key, context=blob.encode()), made.data))
        keyholder, ttl_s = stores.keys.at(kept_at.keyholder), lifetime_s + SETTLE_MARGIN_S
        answer = await keyholder.put(key_id, key, ttl_s=ttl_s, incarnation=kept_at.incarnation)
    finally:
        wipe(key)
    if answer is not PutAnswer.OK:
        raise KeyholderUnavailable(f"the keyholder answered {answer}")
    return Output(
        n=n,
        blob=blob,
        key_id=key_id,
        keyholder=kept_at.keyholder,
        incarnation=kept_at.incarnation,
        media_type=made.media_type,
        size_bytes=len(made.data),
        width=made.width,
        height=made.height,
        destroyed_at=None,
    )


async def ciphertext(encryptor: Encryptor, data: memoryview) -> AsyncIterator[bytes]:
    """Yield what an encryptor makes of data, and wipe it."""
    try:
        for start in range(0, len(data), CHUNK_BYTES):
            yield encryptor.update(data[start : start + CHUNK_BYTES])
        yield encryptor.finish()
    finally:
        encryptor.wipe()

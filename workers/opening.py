"""Opens what a job was given: ciphertext and key into shared memory that is overwritten before it is let go."""

from collections.abc import Sequence

from broker.crypto.chunked import KEY_BYTES, CiphertextInvalid, Decryptor
from broker.custody import What
from broker.errors import IllegalTransition
from broker.jobs import Job, StoredUpload
from broker.operations import Value, read_texts
from broker.secret_memory import wipe
from broker.store.keys import OpenAnswer
from broker.store.stores import Stores
from providers.base import Upload
from workers.outcomes import Stopped, failed
from workers.plaintext import Plaintext, mapped


async def open_pictures(
    stores: Stores, job: Job, uploads: Sequence[StoredUpload], plaintext: Plaintext
) -> list[Upload]:
    """Open a job's pictures in their order; raise Stopped where one can never be opened again."""
    pictures = [upload for upload in uploads if upload.what is What.UPLOAD]
    return [await _open(stores, job, picture, plaintext) for picture in pictures]


async def open_texts(stores: Stores, job: Job, uploads: Sequence[StoredUpload]) -> dict[str, Value]:
    """Open what the user typed; empty where that is nothing."""
    with Plaintext() as plaintext:
        for upload in uploads:
            if upload.what is What.PARAMETERS:
                opened = await _open(stores, job, upload, plaintext)
                with mapped(opened.fd) as text:
                    return dict(read_texts(text))
    return {}


async def _open(stores: Stores, job: Job, stored: StoredUpload, plaintext: Plaintext) -> Upload:
    key = bytearray(KEY_BYTES)
    try:
        answer = await stores.keys.at(stored.keyholder).open_into(stored.key_id, key, fence=job.fence)
        if answer is OpenAnswer.STALE:
            raise IllegalTransition(f"open {job.id} at fence {job.fence}")
        if answer is OpenAnswer.GONE:
            raise Stopped(failed("key_lost"))
        decryptor = Decryptor(key, context=stored.blob.encode())
    finally:
        wipe(key)
    return await _decrypt(stores, decryptor, stored, plaintext.blank(stored.size_bytes))


async def _decrypt(stores: Stores, decryptor: Decryptor, stored: StoredUpload, descriptor: int) -> Upload:
    at = 0
    try:
        with mapped(descriptor, writable=True) as out:
            async for chunk in stores.blobs.read(stored.blob):
                at += decryptor.update(chunk, out[at:])
            at += decryptor.finish(out[at:])
    except FileNotFoundError:
        raise Stopped(failed("upload_lost")) from None
    except CiphertextInvalid:
        raise Stopped(failed("upload_damaged")) from None
    finally:
        decryptor.wipe()
    return Upload(fd=descriptor, size_bytes=at)

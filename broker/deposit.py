"""What one job was given, on its way into blobs: each under its own key, and no key given away before all is in."""

from collections.abc import AsyncGenerator

from broker.crypto.chunked import KEY_BYTES, Encryptor
from broker.errors import BrokerError, KeyholderUnavailable
from broker.incoming import CheckSize, Incoming, Picture
from broker.jobs import StoredUpload
from broker.sameness import Fingerprint
from broker.secret_memory import random_into, wipe
from broker.store.blobs import BlobStore
from broker.store.keyholders import Keyholders
from broker.store.keys import PutAnswer
from broker.submission import Place

TEXTS_TYPE = "application/json"


class Deposit:
    """
    The uploads of one job while they come in; its custody rows are its caller's business, and come first.

    Holds keys, and a chunk of plaintext, until it is wiped: that too is its caller's, however this ends.
    """

    def __init__(self, blobs: BlobStore, keys: Keyholders, fingerprint: Fingerprint) -> None:
        self._blobs = blobs
        self._keys = keys
        self._made: list[tuple[Place, bytearray]] = []
        self.fingerprint = fingerprint
        self.uploads: list[StoredUpload] = []

    async def keep_texts(self, place: Place, texts: bytearray) -> None:
        """Encrypt what a user typed."""
        encryptor = self._encryptor(place)
        try:
            await self._blobs.put(place.blob, _sealed(encryptor, texts))
        finally:
            encryptor.wipe()
        self.uploads.append(place.stored(media_type=TEXTS_TYPE, size_bytes=len(texts)))

    async def keep_picture(self, place: Place, picture: Picture, *, max_bytes: int, check_size: CheckSize) -> None:
        """Encrypt a picture while it comes in; raise what is wrong with it."""
        incoming = Incoming(
            picture, self._encryptor(place), self.fingerprint, max_bytes=max_bytes, check_size=check_size
        )
        try:
            await self._store(place, incoming)
        finally:
            incoming.wipe()
        assert incoming.kind is not None
        self.uploads.append(place.stored(media_type=incoming.kind.media_type, size_bytes=incoming.size_bytes))

    async def hand_over(self, *, ttl_s: int) -> None:
        """Give every key to the keyholder, where it lives so long by that one's own clock, whatever else is alive."""
        for place, key in self._made:
            keyholder, incarnation = self._keys.at(place.kept_at.keyholder), place.kept_at.incarnation
            answer = await keyholder.put(place.key_id, key, ttl_s=ttl_s, incarnation=incarnation)
            if answer is not PutAnswer.OK:
                raise KeyholderUnavailable(f"the keyholder answered {answer}")

    def wipe(self) -> None:
        """Overwrite every key."""
        for _, key in self._made:
            wipe(key)

    def _encryptor(self, place: Place) -> Encryptor:
        key = bytearray(KEY_BYTES)
        self._made.append((place, key))
        random_into(key)
        return Encryptor(key, context=place.blob.encode())

    async def _store(self, place: Place, incoming: Incoming) -> None:
        try:
            await self._blobs.put(place.blob, incoming.ciphertext())
        except Exception as exc:
            if isinstance(incoming.failure, BrokerError):
                raise incoming.failure from exc
            raise


async def _sealed(encryptor: Encryptor, texts: bytearray) -> AsyncGenerator[bytes]:
    yield encryptor.update(texts)
    yield encryptor.finish()

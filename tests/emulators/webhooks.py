"""
The app's own server, emulated: takes webhooks as Standard Webhooks tells receivers to, and believes nothing unsigned.

It verifies with code of its own (hmac, Ed25519 by the public key), the timestamp within five minutes, and an id once.
"""

import hashlib
import hmac
import time
from base64 import b64decode, b64encode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.emulators.base import Answer, Emulator, Json, Seen

TOLERANCE_S = 300
HOOK = "POST /hooks/{name}"


class Receiver(Emulator):
    """Where webhooks arrive; `events` are those that were verified, each id once however often it came."""

    def __init__(self, *, secret: str, public: str) -> None:
        super().__init__()
        self._secret = b64decode(secret.removeprefix("whsec_"))
        self._public = Ed25519PublicKey.from_public_bytes(b64decode(public.removeprefix("whpk_")))
        self.events: dict[str, Json] = {}
        self.routes = {HOOK: ("hook", self._take)}

    async def _take(self, seen: Seen, name: str) -> Answer:
        del name
        if not self.is_signed(seen):
            return Answer(status=401)
        self.events.setdefault(seen.headers["webhook-id"], seen.json())
        return Answer(status=204)

    def is_signed(self, seen: Seen) -> bool:
        """Whether both schemes verify, and the timestamp is of now."""
        stamp = seen.headers["webhook-timestamp"]
        content = f"{seen.headers['webhook-id']}.{stamp}.".encode() + seen.body
        signatures = seen.headers["webhook-signature"].split(" ")
        expected = "v1," + b64encode(hmac.new(self._secret, content, hashlib.sha256).digest()).decode()
        is_now = abs(time.time() - int(stamp)) < TOLERANCE_S
        return is_now and expected in signatures and any(self._is_by_us(one, content) for one in signatures)

    def _is_by_us(self, signature: str, content: bytes) -> bool:
        version, _, text = signature.partition(",")
        if version != "v1a":
            return False
        try:
            self._public.verify(b64decode(text), content)
        except InvalidSignature:
            return False
        return True

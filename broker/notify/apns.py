"""
Push through Apple (APNs, HTTP/2 alone): a background notification with a job's id and how it ended, to one device.

The key that Apple gave out signs a token (ES256) of at most an hour, made anew no more often than Apple allows.
"""

import re
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import httpx
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.crypto.jwt import jwt_of
from broker.notifications import Answer, Notification, Told
from broker.notify.answers import read_answer
from broker.settings import SettingsInvalid

log = structlog.get_logger()

URL = "https://api.push.apple.com"
TIMEOUT_S = 10.0
TOKEN_S = 2_400.0
"""Apple refuses tokens that are older than an hour, and more than one in twenty minutes."""
LIVES_S = 3_600
"""How long Apple keeps a notification for a phone that is off."""
_COORDINATE_BYTES = 32
_FILE = re.compile(r"AuthKey_([A-Z0-9]{10})\.p8")
_APP = re.compile(r"([A-Z0-9]{10})\.([A-Za-z0-9.\-]{1,200})")


class ApnsKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key and the app that it may send to."""

    key: EllipticCurvePrivateKey
    key_id: str
    team_id: str
    bundle_id: str

    def __repr__(self) -> str:
        """Show no key."""
        return f"ApnsKey({self.key_id})"

    def token(self, now: int) -> str:
        """Sign what Apple calls a provider token (RFC 7519, ES256)."""
        header: dict[str, str] = {"alg": "ES256", "kid": self.key_id}
        return jwt_of(header, {"iss": self.team_id, "iat": now}, sign=self._sign)

    def _sign(self, content: bytes) -> bytes:
        numbers = decode_dss_signature(self.key.sign(content, ECDSA(SHA256())))
        return b"".join(number.to_bytes(_COORDINATE_BYTES, "big") for number in numbers)


class Apns:
    """Tells iPhones."""

    def __init__(
        self, key: ApnsKey, *, url: str = URL, now: Callable[[], float] = time.time, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._key = key
        self._url = url
        self._now = now
        # Authorities of its own: into those that are shared httpcore writes what other connections offer, HTTP/1.1.
        transport = httpx.AsyncHTTPTransport(http1=False, http2=True, trust_env=False)
        self._client = httpx.AsyncClient(transport=transport, timeout=timeout_s, follow_redirects=False)
        self._token, self._renew_at = "", 0.0

    async def send(self, notification: Notification) -> Answer:
        """Send once."""
        url = f"{self._url}/3/device/{notification.target}"
        try:
            response = await self._client.post(url, json=_payload(notification), headers=self._headers(notification))
        except httpx.HTTPError as exc:
            log.warning("push_failed", code=type(exc).__name__)
            return Answer(told=Told.FAILED)
        if response.status_code == HTTPStatus.FORBIDDEN:
            log.error("push_account_refused", status=response.status_code)
        return read_answer(response, gone=HTTPStatus.GONE, refused=(HTTPStatus.BAD_REQUEST,))

    async def aclose(self) -> None:
        """Let go."""
        await self._client.aclose()

    def _headers(self, notification: Notification) -> dict[str, str]:
        now = self._now()
        if now >= self._renew_at:
            self._token, self._renew_at = self._key.token(int(now)), now + TOKEN_S
        return {
            "authorization": f"bearer {self._token}",
            "apns-id": str(notification.id),
            "apns-topic": self._key.bundle_id,
            "apns-push-type": "background",
            "apns-priority": "5",
            "apns-expiration": str(int(now) + LIVES_S),
        }


def _payload(notification: Notification) -> dict[str, object]:
    return {"aps": {"content-available": 1}, "job": str(notification.public_id), "type": notification.type}


def load_apns_key(path: Path, app_id: str) -> ApnsKey:
    """Read a key under the name that Apple gave its file; raise SettingsInvalid, which shows nothing of it."""
    name, app = _FILE.fullmatch(path.name), _APP.fullmatch(app_id)
    if name is None:
        raise SettingsInvalid("LETHE_APNS_KEY_FILE is not called AuthKey_ID.p8, as Apple calls it")
    if app is None:
        raise SettingsInvalid(
            "LETHE_APNS_APP_ID is not the team's id, a dot and the bundle's id: ABCDE12345.com.example.app"
        )
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as exc:
        raise SettingsInvalid("LETHE_APNS_KEY_FILE cannot be read, or is no private key") from exc
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise SettingsInvalid("LETHE_APNS_KEY_FILE is not a key of the curve P-256")
    return ApnsKey(key=key, key_id=name[1], team_id=app[1], bundle_id=app[2])

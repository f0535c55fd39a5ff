"""
Push through Firebase Cloud Messaging (HTTP v1): a data message with a job's id and how it ended, to one device.

The service account signs an assertion (RFC 7523, RS256), for which Google gives an access token of an hour.
"""

import asyncio
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.notifications import Answer, Notification, Told
from broker.notify.answers import read_answer
from broker.settings import SettingsInvalid

log = structlog.get_logger()

URL = "https://fcm.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_S = 3_600
RENEW_BEFORE_S = 300.0
TIMEOUT_S = 10.0
LIVES_S = 3_600
"""How long Google keeps a message for a phone that is off."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a service account's file."""

    project_id: str
    private_key_id: str
    private_key: str
    client_email: str
    token_uri: str

    def __repr__(self) -> str:
        """Show no key."""
        return f"Account({self.project_id})"


class _AccessToken(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: int


class Fcm:
    """Tells phones."""

    def __init__(
        self, account: Account, *, url: str = URL, now: Callable[[], float] = time.time, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._account = account
        self._key = _signing_key(account.private_key)
        self._sends_to = f"{url}/v1/projects/{quote(account.project_id, safe='')}/messages:send"
        self._now = now
        self._client = httpx.AsyncClient(trust_env=False, timeout=timeout_s, follow_redirects=False)
        self._lock = asyncio.Lock()
        self._token, self._renew_at = "", 0.0

    async def send(self, notification: Notification) -> Answer:
        """Send once."""
        try:
            headers = {"Authorization": f"Bearer {await self._access_token()}"}
            response = await self._client.post(self._sends_to, json=message_of(notification), headers=headers)
        except (httpx.HTTPError, msgspec.DecodeError) as exc:
            log.warning("push_failed", code=type(exc).__name__)
            return Answer(told=Told.FAILED)
        if response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            self._renew_at = 0.0
            log.error("push_account_refused", status=response.status_code)
        return read_answer(response, gone=HTTPStatus.NOT_FOUND, refused=(HTTPStatus.BAD_REQUEST,))

    async def aclose(self) -> None:
        """Let go."""
        await self._client.aclose()

    async def _access_token(self) -> str:
        async with self._lock:
            if self._now() >= self._renew_at:
                await self._renew()
            return self._token

    async def _renew(self) -> None:
        form = {"grant_type": GRANT, "assertion": self._assertion()}
        response = await self._client.post(self._account.token_uri, data=form)
        if not response.is_success:
            log.error("push_account_refused", status=response.status_code)
        response.raise_for_status()
        given = msgspec.json.decode(response.content, type=_AccessToken)
        self._token, self._renew_at = given.access_token, self._now() + given.expires_in - RENEW_BEFORE_S

    def _assertion(self) -> str:
        account, now = self._account, int(self._now())
        header = {"alg": "RS256", "typ": "JWT", "kid": account.private_key_id}
        claims = {
            "iss": account.client_email,
            "scope": SCOPE,
            "aud": account.token_uri,
            "iat": now,
            "exp": now + ASSERTION_S,
        }
        signed = b".".join(_encoded(msgspec.json.encode(part)) for part in (header, claims))
        return (signed + b"." + _encoded(self._key.sign(signed, PKCS1v15(), SHA256()))).decode()


def message_of(notification: Notification) -> Mapping[str, object]:
    """Write what is sent: no words, so that what the user reads is made on the phone, in the user's language."""
    apns = {"headers": {"apns-priority": "5", "apns-push-type": "background"}}
    message = {
        "token": notification.target,
        "data": {"job": str(notification.public_id), "type": notification.type},
        "android": {"priority": "HIGH", "ttl": f"{LIVES_S}s"},
        "apns": {**apns, "payload": {"aps": {"content-available": 1}}},
    }
    return {"message": message}


def load_account(path: Path) -> Account:
    """Read a service account's file as Google gives it out; raise SettingsInvalid, which shows nothing of it."""
    try:
        account = msgspec.json.decode(path.read_bytes(), type=Account)
    except (OSError, msgspec.DecodeError) as exc:
        raise SettingsInvalid("LETHE_FCM_ACCOUNT_FILE cannot be read, or is no service account") from exc
    _signing_key(account.private_key)
    return account


def _signing_key(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as exc:
        raise SettingsInvalid("LETHE_FCM_ACCOUNT_FILE: its private key cannot be read") from exc
    if not isinstance(key, RSAPrivateKey):
        raise SettingsInvalid("LETHE_FCM_ACCOUNT_FILE: its private key is not RSA")
    return key


def _encoded(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")

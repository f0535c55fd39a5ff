"""A Google service account: its key signs an assertion (RFC 7523), for which Google gives a token for an hour."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.crypto.jwt import jwt_of
from broker.settings import SettingsInvalid

log = structlog.get_logger()

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_S = 3_600
RENEW_BEFORE_S = 300.0


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


class AccessTokens:
    """Gets access tokens for one scope, and keeps the one that lasts."""

    def __init__(
        self, account: Account, client: httpx.AsyncClient, *, scope: str, now: Callable[[], float] = time.time
    ) -> None:
        self._account = account
        self._client = client
        self._scope = scope
        self._key = _signing_key(account.private_key)
        self._now = now
        self._lock = asyncio.Lock()
        self._token, self._renew_at = "", 0.0

    async def headers(self) -> dict[str, str]:
        """Return the header that lets a request in; raise httpx.HTTPError or msgspec.DecodeError."""
        async with self._lock:
            if self._now() >= self._renew_at:
                await self._renew()
            return {"Authorization": f"Bearer {self._token}"}

    def refused(self, status: int) -> None:
        """Take note that a token was not accepted: the next request gets another one."""
        self._renew_at = 0.0
        log.error("google_account_refused", status=status)

    async def _renew(self) -> None:
        form = {"grant_type": GRANT, "assertion": self._assertion()}
        response = await self._client.post(self._account.token_uri, data=form)
        if not response.is_success:
            log.error("google_account_refused", status=response.status_code)
        response.raise_for_status()
        given = msgspec.json.decode(response.content, type=_AccessToken)
        self._token, self._renew_at = given.access_token, self._now() + given.expires_in - RENEW_BEFORE_S

    def _assertion(self) -> str:
        account, now = self._account, int(self._now())
        header = {"alg": "RS256", "typ": "JWT", "kid": account.private_key_id}
        claims = {
            "iss": account.client_email,
            "scope": self._scope,
            "aud": account.token_uri,
            "iat": now,
            "exp": now + ASSERTION_S,
        }
        return jwt_of(header, claims, sign=lambda content: self._key.sign(content, PKCS1v15(), SHA256()))


def load_account(path: Path, *, setting: str) -> Account:
    """Read a service account's file as Google gives it out; raise SettingsInvalid, which shows nothing of it."""
    try:
        account = msgspec.json.decode(path.read_bytes(), type=Account)
        _signing_key(account.private_key)
    except (OSError, msgspec.DecodeError) as exc:
        raise SettingsInvalid(f"{setting} cannot be read, or is no service account") from exc
    except (ValueError, TypeError) as exc:
        raise SettingsInvalid(f"{setting}: its private key cannot be read, or is not RSA") from exc
    return account


def _signing_key(pem: str) -> RSAPrivateKey:
    key = load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("not RSA")
    return key

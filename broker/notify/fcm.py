"""Push through Firebase Cloud Messaging (HTTP v1): a data message with a job's id and how it ended, to one device."""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import msgspec
import structlog

from broker.google_account import AccessTokens, Account, load_account
from broker.notifications import Answer, Notification, Told
from broker.notify.answers import read_answer
from broker.routes import is_loopback
from broker.settings import SettingsInvalid
from providers.calls import trust

log = structlog.get_logger()

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
TIMEOUT_S = 10.0
LIVES_S = 3_600
"""How long Google keeps a message for a phone that is off."""


class Fcm:
    """Tells phones."""

    def __init__(
        self, account: Account, *, url: str, now: Callable[[], float] = time.time, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._sends_to = f"{url}/v1/projects/{quote(account.project_id, safe='')}/messages:send"
        self._client = httpx.AsyncClient(verify=trust(), trust_env=False, timeout=timeout_s, follow_redirects=False)
        self._tokens = AccessTokens(account, self._client, scope=SCOPE, now=now)

    async def send(self, notification: Notification) -> Answer:
        """Send once."""
        try:
            headers = await self._tokens.headers()
            response = await self._client.post(self._sends_to, json=message_of(notification), headers=headers)
        except (httpx.HTTPError, msgspec.DecodeError) as exc:
            log.warning("push_failed", code=type(exc).__name__)
            return Answer(told=Told.FAILED)
        if response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            self._tokens.refused(response.status_code)
        return read_answer(response, gone=HTTPStatus.NOT_FOUND, refused=(HTTPStatus.BAD_REQUEST,))

    async def aclose(self) -> None:
        """Let go."""
        await self._client.aclose()


def load_fcm(account_file: Path, url: str) -> Fcm:
    """Read the account's file, and check the address; raise SettingsInvalid."""
    if not _is_safe(url):
        raise SettingsInvalid("LETHE_FCM_URL is no https:// address; only on loopback it may be http://")
    return Fcm(load_account(account_file, setting="LETHE_FCM_ACCOUNT_FILE"), url=url.rstrip("/"))


def _is_safe(url: str) -> bool:
    """Whether nobody on the way can read a token."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    is_ours = parts.scheme == "http" and is_loopback(parts.hostname or "")
    return bool(parts.hostname) and (parts.scheme == "https" or is_ours)


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

"""
Firebase Cloud Messaging, emulated: Google's token endpoint, and messages:send of the HTTP v1 API.

Assertions are verified by PyJWT, which is not ours; a message with a field that the reference does not have is refused,
as the real one does.
"""

import json
import secrets
import time
from typing import Any
from urllib.parse import parse_qs

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.emulators.base import Answer, Emulator, Seen, answer_json

PROJECT = "studio-app"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
SEND = "POST /v1/projects/{project}/messages:send"


class _Android(msgspec.Struct, forbid_unknown_fields=True):
    priority: str = ""
    ttl: str = ""
    collapse_key: str = ""


class _Apns(msgspec.Struct, forbid_unknown_fields=True):
    headers: dict[str, str] = {}
    payload: dict[str, Any] = {}


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    token: str
    data: dict[str, str] = {}
    notification: dict[str, str] = {}
    android: _Android | None = None
    apns: _Apns | None = None


class _Sent(msgspec.Struct, forbid_unknown_fields=True):
    message: _Message
    validate_only: bool = False


class FcmEmulator(Emulator):
    """The service; `gone` are tokens of apps that were removed, `messages` what phones got."""

    def __init__(self) -> None:
        super().__init__()
        self._key = generate_private_key(public_exponent=65_537, key_size=2_048)
        self._access: set[str] = set()
        self.gone: set[str] = set()
        self.messages: list[_Message] = []
        self.routes = {"POST /token": ("token", self._grant), SEND: ("send", self._send)}

    @property
    def account(self) -> bytes:
        """The file of a service account, as Google gives it out."""
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        content = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "k1",
            "private_key": pem,
            "client_email": f"push@{PROJECT}.iam.example",
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }
        return json.dumps(content).encode()

    def expire(self) -> None:
        """Let every access token be refused from now on."""
        self._access.clear()

    async def _grant(self, seen: Seen) -> Answer:
        form = {name: values[0] for name, values in parse_qs(seen.body.decode()).items()}
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return answer_json({"error": "unsupported_grant_type"}, 400)
        audience = f"{self.url}/token"
        try:
            claims = jwt.decode(form["assertion"], self._key.public_key(), algorithms=["RS256"], audience=audience)
        except jwt.PyJWTError as exc:
            return answer_json({"error": "invalid_grant", "error_description": type(exc).__name__}, 400)
        is_right = claims["iss"].startswith("push@") and claims["scope"] == SCOPE
        if not is_right or claims["exp"] - claims["iat"] > 3_600 or claims["iat"] > time.time() + 60:
            return answer_json({"error": "invalid_grant"}, 400)
        token = f"ya29.{secrets.token_urlsafe(16)}"
        self._access.add(token)
        return answer_json({"access_token": token, "expires_in": 3_599, "token_type": "Bearer"})

    async def _send(self, seen: Seen, project: str) -> Answer:
        if seen.headers.get("authorization", "").removeprefix("Bearer ") not in self._access:
            return _error(401, "UNAUTHENTICATED")
        if project != PROJECT:
            return _error(403, "SENDER_ID_MISMATCH")
        try:
            message = msgspec.json.decode(seen.body, type=_Sent).message
        except msgspec.DecodeError:
            return _error(400, "INVALID_ARGUMENT")
        if message.token in self.gone:
            return _error(404, "UNREGISTERED")
        self.messages.append(message)
        return answer_json({"name": f"projects/{PROJECT}/messages/{len(self.messages)}"})


def _error(status: int, code: str) -> Answer:
    details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]
    return answer_json({"error": {"code": status, "message": "no", "status": code, "details": details}}, status)

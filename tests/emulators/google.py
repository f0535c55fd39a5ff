"""
Google's token endpoint, emulated, for emulators of what lies behind it.

Assertions are verified by PyJWT, which is not ours.
"""

import json
import secrets
import time
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.emulators.base import Answer, Emulator, Seen, answer_json

PROJECT = "studio-app"


class GoogleEmulator(Emulator):
    """Gives access tokens for one scope to whoever has the account's key."""

    scope = ""

    def __init__(self) -> None:
        super().__init__()
        self._key = generate_private_key(public_exponent=65_537, key_size=2_048)
        self._access: set[str] = set()
        self.routes = {"POST /token": ("token", self._grant)}

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
        is_right = claims["iss"].startswith("push@") and claims["scope"] == self.scope
        if not is_right or claims["exp"] - claims["iat"] > 3_600 or claims["iat"] > time.time() + 60:
            return answer_json({"error": "invalid_grant"}, 400)
        token = f"ya29.{secrets.token_urlsafe(16)}"
        self._access.add(token)
        return answer_json({"access_token": token, "expires_in": 3_599, "token_type": "Bearer"})

    def lets_in(self, seen: Seen) -> bool:
        """Whether a request comes with a token that was given."""
        return seen.headers.get("authorization", "").removeprefix("Bearer ") in self._access

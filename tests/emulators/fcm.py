"""
Firebase Cloud Messaging, emulated: messages:send of the HTTP v1 API.

A message with a field that the reference does not have is refused, as the real one does.
"""

from typing import Any

import msgspec

from tests.emulators import serving
from tests.emulators.base import Answer, Seen, answer_json
from tests.emulators.google import PROJECT, GoogleEmulator

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
SEND = "POST /v1/projects/{project}/messages:send"
ACCOUNT = "GET /-/account"
"""No part of Firebase's API: who started the emulator asks here for the account's file."""


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


class FcmEmulator(GoogleEmulator):
    """The service; `gone` are tokens of apps that were removed, `messages` what phones got."""

    scope = SCOPE

    def __init__(self) -> None:
        super().__init__()
        self.gone: set[str] = set()
        self.messages: list[_Message] = []
        self.routes |= {SEND: ("send", self._send), ACCOUNT: ("account", self._give_account)}

    async def _send(self, seen: Seen, project: str) -> Answer:
        if not self.lets_in(seen):
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

    async def _give_account(self, seen: Seen) -> Answer:
        del seen
        return Answer(body=self.account, headers={"content-type": "application/json"})


def _error(status: int, code: str) -> Answer:
    details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code}]
    return answer_json({"error": {"code": status, "message": "no", "status": code, "details": details}}, status)


if __name__ == "__main__":
    serving.serve(FcmEmulator(), serving.arguments("Firebase Cloud Messaging, emulated"))

"""
Apple's push service, emulated: HTTP/2 alone; provider tokens are verified by PyJWT.

A request that is not HTTP/2, or whose headers are not those that Apple documents, is refused with Apple's reasons.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded

from tests.emulators.base import Answer, Emulator, Seen, answer_json

KEY_ID = "ABC123DEFG"
TEAM = "TEAM123456"
BUNDLE = "com.example.foto"
LONGEST_S = 3_600


class ApnsEmulator(Emulator):
    """The service; `gone` are tokens of apps that were removed, `pushed` what phones got."""

    def __init__(self) -> None:
        super().__init__()
        self._key = generate_private_key(SECP256R1())
        self.gone: set[str] = set()
        self.pushed: list[tuple[str, dict[str, Any]]] = []
        self.tokens: set[str] = set()
        self.routes = {"POST /3/device/{token}": ("push", self._push)}

    @property
    def pem(self) -> bytes:
        """The file that Apple gives out."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    async def answer_to(self, seen: Seen) -> Answer:
        """Answer one request, or do what is scripted instead."""
        self.seen.append(seen)
        token = seen.path.removeprefix("/3/device/")
        if seen.method != "POST" or token == seen.path:
            return answer_json({"reason": "BadPath"}, 404)
        return await self._answer(seen, self._push, {"token": token})

    async def _push(self, seen: Seen, token: str) -> Answer:
        reason = self._fault(seen)
        if reason:
            return answer_json({"reason": reason}, 403 if "ProviderToken" in reason else 400)
        if token in self.gone:
            return answer_json({"reason": "Unregistered", "timestamp": 1}, 410)
        self.pushed.append((token, seen.json()))
        return Answer(headers={"apns-id": seen.headers["apns-id"]})

    def _fault(self, seen: Seen) -> str:
        shown = seen.headers.get("authorization", "").removeprefix("bearer ")
        self.tokens.add(shown)
        try:
            claims = jwt.decode(shown, self._key.public_key(), algorithms=["ES256"], issuer=TEAM)
        except jwt.PyJWTError:
            return "InvalidProviderToken"
        if jwt.get_unverified_header(shown)["kid"] != KEY_ID:
            return "InvalidProviderToken"
        if abs(time.time() - claims["iat"]) > LONGEST_S:
            return "ExpiredProviderToken"
        wanted = {"apns-topic": BUNDLE, "apns-push-type": "background", "apns-priority": "5"}
        wrong = [name for name, value in wanted.items() if seen.headers.get(name) != value]
        return f"Bad{wrong[0]}" if wrong else ""


class _Stream(msgspec.Struct):
    """A request that is being read."""

    head: dict[str, str]
    body: bytes = b""

    def seen(self) -> Seen:
        return Seen(
            route="push",
            method=self.head[":method"],
            path=self.head[":path"],
            query={},
            headers=self.head,
            body=self.body,
        )


@contextlib.asynccontextmanager
async def running(emulator: ApnsEmulator) -> AsyncGenerator[str]:
    """Serve it on loopback, without TLS: HTTP/2 by prior knowledge."""

    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.add(task)
        with contextlib.suppress(OSError):
            try:
                await _serve(emulator, reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    emulator.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield emulator.url
    finally:
        server.close()
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)


async def _serve(emulator: ApnsEmulator, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    streams: dict[int, _Stream] = {}
    writer.write(connection.data_to_send())
    while data := await reader.read(65_536):
        for event in connection.receive_data(data):
            match event:
                case RequestReceived(stream_id=int(number), headers=headers):
                    streams[number] = _Stream(head={str(name): str(value) for name, value in headers or []})
                case DataReceived(stream_id=int(number), data=bytes(piece)):
                    streams[number].body += piece
                case StreamEnded(stream_id=int(number)):
                    answer = await emulator.answer_to(streams.pop(number).seen())
                    if answer.is_cut:
                        return
                    fields = [(":status", str(answer.status)), *answer.headers.items()]
                    connection.send_headers(number, fields)
                    connection.send_data(number, answer.body, end_stream=True)
                case _:
                    pass
        writer.write(connection.data_to_send())
        await writer.drain()

"""Speaks to the operator's listener of a broker, for the commands that need an operator key."""

from typing import Any

import httpx
import msgspec

from broker.client import ServerRefused, ServerUnreachable

TIMEOUT_S = 40.0
"""An erasure answers after 20 s at the latest."""


async def ask(url: str, key: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send one request with an operator key and return the answer; raise ServerRefused or ServerUnreachable."""
    try:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http:
            answer = await http.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})
    except httpx.TransportError as exc:
        raise ServerUnreachable(f"no broker answers operators at {url}; LETHE_OPERATOR_LISTEN says where") from exc
    try:
        said: dict[str, Any] = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:
        said = {}
    if answer.is_error:
        raise ServerRefused(answer.status_code, str(said.get("code", "")), str(said.get("detail", "")))
    return said

"""Server-sent events of one job."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from broker.api import events
from broker.jobs import Outcome
from tests.api_client import Api


async def frames(answer: httpx.Response) -> AsyncIterator[list[str]]:
    """Yield the lines of each event."""
    lines: list[str] = []
    async for line in answer.aiter_lines():
        if line:
            lines.append(line)
        else:
            yield lines
            lines = []


async def test_every_change_is_sent_until_the_end(api: Api) -> None:
    """Version, job, and an end; then the stream is closed."""
    shown = await api.queued()
    got: list[list[str]] = []
    async with asyncio.timeout(5), api.http.stream("GET", f"/v1/jobs/{shown['id']}/events", headers=api.auth) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["cache-control"] == "private, no-store"
        async for frame in frames(answer):
            got.append(frame)
            if len(got) == 2:
                await api.ended(shown, Outcome.SUCCEEDED, outputs=(b"x",))
    assert got[0] == ["retry: 3000"]
    assert got[1][:2] == [f"id: {shown['version']}", "event: job"]
    assert '"status":"queued"' in got[1][2]
    assert '"status":"succeeded"' in got[-2][2]
    assert got[-1] == ["event: end", "data: {}"]


async def test_what_was_seen_is_not_sent_again(api: Api) -> None:
    """Last-Event-ID of the current version starts with the next change; of a final one it is 204."""
    shown = await api.queued()
    path = f"/v1/jobs/{shown['id']}/events"
    await api.ended(shown, Outcome.FAILED, code="invalid_image")
    final = (await api.get(f"/v1/jobs/{shown['id']}")).json()
    assert (await api.get(path, Last_Event_ID=str(final["version"]))).status_code == 204
    stale = await api.get(path, Last_Event_ID=str(shown["version"]))
    assert f"id: {final['version']}" in stale.text
    assert f"id: {shown['version']}\n" not in stale.text


async def test_a_quiet_stream_beats(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment keeps proxies from closing a stream in which nothing happens."""
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    shown = await api.queued()
    headers = {**api.auth, "Last-Event-ID": str(shown["version"])}
    async with asyncio.timeout(5), api.http.stream("GET", f"/v1/jobs/{shown['id']}/events", headers=headers) as answer:
        beats = [frame async for frame in first(frames(answer), 3)]
    assert beats == [["retry: 3000"], [": hb"], [": hb"]]


async def test_a_stream_ends_with_the_server(api: Api, closing: asyncio.Event) -> None:
    """A closing server ends its streams, so that it can stop."""
    shown = await api.queued()
    async with asyncio.timeout(5), api.http.stream("GET", f"/v1/jobs/{shown['id']}/events", headers=api.auth) as answer:
        async for frame in frames(answer):
            if frame[0].startswith("id:"):
                closing.set()
                api.services.changes.wake_all()


async def first(items: AsyncIterator[list[str]], count: int) -> AsyncIterator[list[str]]:
    async for item in items:
        yield item
        count -= 1
        if not count:
            return

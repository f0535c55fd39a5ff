"""An app on one device of a user, as a journey plays it: it says what it does, and does it over the public API."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self
from uuid import UUID

import msgspec

from broker.client import Client, JobView, User
from broker.demo.report import Report
from broker.devices import Device
from broker.opener import Opener
from broker.submit import finish, progress_bars


class Phone:
    """One device. What is sealed to it, it opens."""

    def __init__(self, client: Client, report: Report, name: str) -> None:
        self.client = client
        self.opener = Opener.new()
        self.user: User
        self._report = report
        self._name = name

    @classmethod
    @asynccontextmanager
    async def in_browser(
        cls, url: str, report: Report, *, token: str, site: str = "same-origin"
    ) -> AsyncGenerator[Self]:
        """Exchange a token for the one cookie, and go on with that alone, from a page of this site or of another."""
        async with Client(url, token=token) as once:
            cookies = (await once.answer("POST", "/v1/me/session")).headers.get_list("set-cookie")
        report.check(f"one cookie is set: {cookies[0].partition(';')[2].strip()}", len(cookies) == 1)
        headers = {"Cookie": cookies[0].partition(";")[0], "Sec-Fetch-Site": site}
        async with Client(url, headers=headers) as client:
            yield cls(client, report, "the browser")

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str, report: Report, *, name: str = "the phone", token: str = "") -> AsyncGenerator[Self]:
        """Start the app; it is nobody yet, or whoever has this token."""
        async with Client(url, token=token) as client:
            yield cls(client, report, name)

    async def begin(self) -> None:
        """Become an anonymous user."""
        self.user = await self.client.mint_user()
        self._report.say(f"{self.user.user_id}: nothing was asked, nothing else is stored")

    async def agree(self, *also: str) -> None:
        """Give the consents that the notice asks for, and some that it leaves open; say to be old enough."""
        asked = await self.client.ask("GET", "/v1/me/consents")
        give = [*(one["purpose"] for one in asked["consents"] if one["is_required"]), *also]
        is_of_age = {"is_of_age": True} if "min_age" in asked else {}
        wish = {"notice_version": asked["notice_version"], "give": give, **is_of_age}
        missing = (await self.client.ask("PUT", "/v1/me/consents", wish))["missing"]
        age = f", and to be {asked['min_age']} or older" if is_of_age else ""
        self._report.check(f"agrees to {', '.join(give)}{age}; nothing is missing now", not missing)

    async def register(self) -> None:
        """Make a key pair, and tell the broker the public key."""
        await self.opener.register(self.client)
        self._report.say(f"{self._name} has made a key pair; the broker knows the public key of it, and no name")

    async def order(
        self,
        operation: str,
        parameters: Mapping[str, object] | None = None,
        pictures: Sequence[bytes] = (),
        **more: str,
    ) -> JobView:
        """Send a job, with `more` members, and follow it to its end; JobFailed unless it succeeds."""
        job = await self.client.post({"operation": operation, "parameters": parameters or {}, **more}, pictures)
        with progress_bars(self._report.console) as bars:
            return await finish(self.client, job.id, operation=operation, bars=bars)

    async def open(self, job_id: str, n: int = 0) -> bytes:
        """Fetch a sealed output and open it."""
        return await self.opener.open(self.client, job_id, n)

    async def gallery(self) -> list[tuple[str, int]]:
        """List what can be fetched, newest first: jobs, and the numbers of their outputs."""
        items: list[dict[str, Any]] = (await self.client.ask("GET", "/v1/outputs"))["items"]
        return [(item["job_id"], item["n"]) for item in items]

    async def hand_on_to(self, other: "Phone") -> int:
        """Let another device of the user open what it cannot open yet; return how many outputs."""
        found = await self.client.ask("GET", "/v1/me/devices")
        devices = msgspec.convert(found["items"], list[Device])
        device = next(device for device in devices if device.id == UUID(other.opener.device_id))
        missing = (await self.client.ask("GET", f"/v1/me/devices/{device.id}/missing"))["items"]
        for one in missing:
            await self.opener.hand_on(self.client, one["job_id"], one["n"], device=device)
        return len(missing)

"""Jobs of every kind, from the phone's side: sent, followed, fetched, deleted, whatever dies meanwhile."""

import asyncio
import json
import random
import time
from base64 import urlsafe_b64encode
from collections.abc import Generator
from contextlib import contextmanager
from uuid import UUID, uuid4

import msgspec

from tests.phone import FINAL, Json, Marks, Phone
from tests.third_parties import ThirdParties

DEADLINE_S = 30.0
BOUND_S = 30.0
"""Lease, its grace, the lease of settling, and a start of every process on a machine with other things to do."""
NEVER_S = 300.0
LOOK_AGAIN_S = 0.05
PROMPT = "a heron at dusk"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, and what becomes of it when nothing dies."""

    name: str
    query: str
    ends: str
    width: int = 64
    is_broken: bool = False
    has_prompt: bool = False
    run_s: float = 0.3
    deadline_s: float = DEADLINE_S
    is_canceled: bool = False


KINDS = (
    Kind(name="in-house", query="restyle", ends="succeeded"),
    Kind(name="broken picture", query="restyle", ends="failed", is_broken=True),
    Kind(name="asynchronous provider", query="upscale&scale=2", ends="succeeded", width=420),
    Kind(name="inline provider", query="edit", ends="succeeded", has_prompt=True),
    Kind(name="ids of ours", query="remove_background", ends="succeeded"),
    Kind(name="canceled", query="upscale&scale=2", ends="canceled", run_s=NEVER_S, is_canceled=True),
    Kind(name="deadline", query="upscale&scale=2", ends="expired", run_s=NEVER_S, deadline_s=4.0),
)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the phone was told of one job."""

    id: UUID
    status: str
    code: str = ""
    charged: bool = False
    output: str = ""
    """`served`, `output_lost`, or what else came instead."""
    violations: tuple[str, ...] = ()


class Case:
    """One job of a kind, with marks of its own."""

    def __init__(self, kind: Kind, phone: Phone, third_parties: ThirdParties) -> None:
        self.id = uuid4()
        self.marks = Marks()
        self._kind = kind
        self._phone = phone
        self._third_parties = third_parties
        self._patience: asyncio.Timeout | None = None

    async def run(self) -> Told:
        """Send it and wait for its end, which has to come by deadline and bound."""
        self._third_parties.forget()
        self._third_parties.replicate.run_s = self._kind.run_s
        within_s = self._kind.deadline_s + BOUND_S
        try:
            async with asyncio.timeout(within_s) as self._patience:
                shown = await self._sent_and_followed()
        except TimeoutError:
            late = f"not final {within_s:.0f} s after it was sent"
            return Told(id=self.id, status="not final", violations=(late,))
        finally:
            self._patience = None
        told = Told(id=self.id, status=shown["status"], code=shown.get("code", ""), charged=shown["charged"])
        return await self._fetched(told, shown)

    @contextmanager
    def without_a_machine(self) -> Generator[None]:
        """Take no account of the time inside the block: nobody can bound how long a machine has no power."""
        patience = self._patience
        if patience is None or (ends_s := patience.when()) is None:
            yield
            return
        began_s = time.monotonic()
        patience.reschedule(None)
        yield
        if self._patience is patience:  # else the job has come to its end before every process was back
            patience.reschedule(ends_s + time.monotonic() - began_s)

    async def delete(self) -> None:
        """Have it destroyed, as a phone does that has saved the result."""
        await self._phone.ask("DELETE", f"/v1/jobs/{self.id}")

    async def _sent_and_followed(self) -> Json:
        picture = self.marks.picture(self._kind.width, self._kind.width, seed=random.Random(1))
        headers = {"Lethe_Finish_Within": str(int(self._kind.deadline_s))}
        if self._kind.has_prompt:
            words = json.dumps({"prompt": f"{PROMPT} {self.marks.secret.decode()}"}).encode()
            headers["Lethe_Parameters"] = urlsafe_b64encode(words).decode()
        body = picture[: len(picture) // 2] if self._kind.is_broken else picture
        answer = await self._phone.send(self.id, body, self._kind.query, **headers)
        assert answer.status_code in {200, 202}, answer.text
        if self._kind.is_canceled:
            await self._until_running()
            await self.delete()
        return await self._phone.follow(self.id)

    async def _until_running(self) -> None:
        """Wait until the provider has the order, or the job has come to another end."""
        while True:
            shown = (await self._phone.get(f"/v1/jobs/{self.id}")).json()
            if shown["status"] in FINAL or (shown["status"] == "running" and self._third_parties.orders):
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _fetched(self, told: Told, shown: Json) -> Told:
        """Fetch what was made: a job that succeeded gives its output, or says that it is lost and is not charged."""
        violations: list[str] = []
        orders = self._third_parties.orders
        if orders > 1:
            violations.append(f"ordered {orders} times")
        if told.charged != (told.status == "succeeded"):
            violations.append(f"{told.status}, charged: {told.charged}")
        output = ""
        if told.status == "succeeded":
            output = await self._output(shown["outputs"][0]["url"])
            again = (await self._phone.get(f"/v1/jobs/{self.id}")).json()
            told = msgspec.structs.replace(told, charged=again["charged"])
            if output not in {"served", "output_lost"} or told.charged != (output == "served"):
                violations.append(f"output {output}, charged: {told.charged}")
        return msgspec.structs.replace(told, output=output, violations=tuple(violations))

    async def _output(self, url: str) -> str:
        answer = await self._phone.get(url)
        if answer.status_code == 200:
            return "served" if answer.content else "empty"
        return str(answer.json().get("code", answer.status_code))

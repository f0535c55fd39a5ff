"""A relay worker in front of one address at which one emulated provider after the other answers, and how jobs end."""

import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from broker import routing
from broker.changes import heard
from broker.jobs import Job
from broker.metrics import render
from broker.services import Services
from broker.settings import Settings
from broker.verify import sentences
from providers.calls import trust
from tests.emulators.base import Emulator, Json, running
from tests.emulators.case import Case
from tests.lifecycle import eventually
from tests.provider_tables import table
from tests.relay import SECRET_VARIABLE, receipt, relaying, route, theirs
from tests.relay import ended as final
from workers import outside, waiting

ORDERS = {"openai_images": "edit", "kserve": "infer"}
"""What emulators call the route of an order; the others, `order`."""
WORDING = {
    "deleted_by_api": "the provider says that it deleted it (",
    "expires_by": "the provider documents that it is deleted by then, until ",
    "kept_by_terms": "the provider keeps it, by its terms, until ",
    "purge_pending": "the provider has not confirmed its deletion yet; asking goes on, until ",
    "unknown": "nothing is known (",
}
"""How a receipt is read aloud, to where its times begin."""
THINGS = {"upload": "picture", "output": "output", "record": "record of the order"}


class End(NamedTuple):
    """How a job ended, what it cost its user, how often it was ordered, and what is known of a provider's copies."""

    outcome: str
    """`succeeded`, or the error code of a job that did not."""
    is_charged: bool
    orders: int
    rows: "Counter[str]"
    """The custody rows at the provider, "what evidence", counted."""
    copies: str
    """The one word of the job object and the receipt."""


def rows(*attempts: str) -> "Counter[str]":
    """The custody rows of attempts: the evidence of upload, output and record, or one word for all three."""
    counted = Counter[str]()
    for evidence in attempts:
        words = evidence.split() if " " in evidence else [evidence] * 3
        counted.update(f"{what} {word}" for what, word in zip(THINGS, words, strict=True))
    return counted


class Stage(Emulator):
    """An emulator that is another one whenever it is told to be, at the same address."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.actor = case.emulator()

    async def __call__(self, scope: Json, receive: Any, send: Any) -> None:
        """Let the actor serve the request."""
        await self.actor(scope, receive, send)

    def renew(self) -> Any:
        """Put a new emulator there, which knows of nothing."""
        self.actor = self.case.emulator()
        self.actor.url = self.url
        return self.actor


class Theatre(NamedTuple):
    """A stage, and the broker's services of a configuration that has this provider alone."""

    stage: Stage
    services: Services

    async def end(self, job: Job) -> End:
        """Wait for the end of a job; see that its signed receipt, and who reads it aloud, say what its rows say."""
        job = await final(self.services, job)
        rows = Counter(f"{copy.what} {copy.evidence}" for copy in await theirs(self.services, job))
        stated = await receipt(self.services, job)
        lines = [copy for copy in stated.copies if copy.domain == "provider"]
        assert Counter(f"{line.what} {line.evidence}" for line in lines) == rows
        assert {line.provider for line in lines} == {self.name}
        assert (stated.outcome, stated.code, stated.provider_copies) == (job.state, job.code, job.provider_copies)
        aloud = [f"  {THINGS[line.what]} at {self.name}: {WORDING[line.evidence]}" for line in lines]
        said = [line for line in sentences(stated) if f" at {self.name}: " in line]
        assert all(sentence.startswith(start) for sentence, start in zip(said, aloud, strict=True))
        ordered = self.stage.actor.requests(ORDERS.get(self.name, "order"))
        return End(job.code or job.state, job.charged, len(ordered), rows, job.provider_copies)

    @property
    def name(self) -> str:
        """The provider's."""
        return self.stage.case.name

    async def alarms(self) -> float:
        """How often broker and worker have said that nothing is known of this provider's copies."""
        await eventually(self._worker_address, within_s=20)  # it is told with the worker's first renewal
        async with httpx.AsyncClient(verify=trust(), trust_env=False) as client:
            shown = (await client.get(f"{await self._worker_address()}/metrics")).text
        shown += render(self.services.metrics.registry).decode()
        found = re.findall(rf'^lethe_provider_unknown_total{{provider="{self.name}"}} (\S+)$', shown, re.MULTILINE)
        return sum(map(float, found))

    async def _worker_address(self) -> str:
        alive = await self.services.stores.processes.alive()
        return "".join(process.facts.operator_address for process in alive if process.facts.pool == "relay")


@asynccontextmanager
async def theatre(
    case: Case, settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Theatre]:
    """Run a broker and a relay worker that waits for nothing longer than it is told to by a provider."""

    async def soon(event: Any, *, within_s: float) -> bool:
        return await heard(event, within_s=min(within_s, 0.05))

    monkeypatch.setenv(SECRET_VARIABLE, case.secret)
    monkeypatch.setattr(waiting, "heard", soon)
    monkeypatch.setattr(routing, "BACK_OFF_S", (0.05, 0.05))
    monkeypatch.setattr(outside, "ORDER_AGAIN_S", (0.05, 0.05))
    monkeypatch.setattr(outside, "FETCH_AGAIN_S", (0.05, 0.05))
    stage = Stage(case)
    with running(stage):
        config = table(case.name, stage.url) + route("upscale", f"[{{ {case.name} = 1 }}]")
        # Many jobs in one process, on a machine that others use too: no worker counts as dead because it was slow.
        async with relaying(settings, folder, config, lease_s=6.0) as services:
            yield Theatre(stage, services)

"""A third party of a test's own: it knows attempts by our ids, and answers call after call as it is told."""

from typing import Any, ClassVar

import pytest

from providers.base import (
    Deletes,
    Exposure,
    Handle,
    Part,
    Progress,
    Purge,
    Reporter,
    Setup,
    Snapshot,
    Takes,
    Task,
    Terms,
)
from providers.failures import ProviderFailure
from providers.registry import ADAPTERS
from tests.relay import (
    route,
)

DESK = """
[provider.desk]
adapter = "http"
base_url = "https://example.org"
exposure = "logged"
concurrency = {concurrency}

[provider.desk.operation.upscale]
input = {{ image = "$image", scale = "$scale:2" }}
output = "/output"
cost_usd = 0.25

[provider.desk.operation.edit]
input = {{ image = "$image", prompt = "$prompt", n = "$count:1" }}
output = "/output"
"""
RUNNING = Snapshot(progress=Progress.RUNNING, poll_after_s=0.05)


class Desk:
    """A third party that knows attempts by our ids; tests write down how it answers, call after call."""

    terms: ClassVar[Terms] = Terms(
        takes=Takes.FILE,
        operations=frozenset({"upscale", "edit"}),
        exposure=Exposure.LOGGED,
        retention_s=3600,
        deletes=Deletes.API,
        has_client_ids=True,
    )
    script: ClassVar[dict[str, list[object]]]
    calls: ClassVar[list[str]]

    def __init__(self, setup: Setup) -> None:
        del setup

    def _next(self, verb: str, otherwise: Any) -> Any:
        self.calls.append(verb)
        scripted = self.script.get(verb, [])
        answer = (scripted.pop(0) if len(scripted) > 1 else scripted[0]) if scripted else otherwise
        if isinstance(answer, Exception):
            raise type(answer)(*answer.args) if not isinstance(answer, ProviderFailure) else _again(answer)
        return answer

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        """Take an order."""
        del task, reporter
        return self._next("submit", RUNNING)

    async def warm(self) -> None:
        """Nothing to check."""

    async def poll(self, handle: Handle) -> Snapshot:
        """Say how it stands."""
        del handle
        return self._next("poll", RUNNING)

    async def cancel(self, handle: Handle) -> bool:
        """Stop it."""
        del handle
        return self._next("cancel", otherwise=True)

    async def purge(self, handle: Handle) -> Purge:
        """Delete all of it."""
        del handle
        return self._next("purge", Purge(deleted=frozenset(Part)))

    async def healthy(self) -> None:
        """All is well."""

    async def aclose(self) -> None:
        """Nothing is held."""


def _again(failure: ProviderFailure) -> ProviderFailure:
    return ProviderFailure(
        failure.kind,
        failure.detail,
        after_s=failure.after_s,
        is_unsent=failure.is_unsent,
        is_unanswered=failure.is_unanswered,
        cost_usd=failure.cost_usd,
    )


def own_desk(monkeypatch: pytest.MonkeyPatch) -> type[Desk]:
    """Let `adapter = "http"` be a desk that nobody else has written to."""

    class Own(Desk):
        script: ClassVar[dict[str, list[object]]] = {}
        calls: ClassVar[list[str]] = []

    monkeypatch.setitem(ADAPTERS, "http", Own)
    return Own


def config(*, concurrency: int = 8, **more: object) -> str:
    """One route that leads to the desk."""
    return DESK.format(concurrency=concurrency) + route("upscale", "[{ desk = 1 }]", **more)

"""
The real use cases in any order, under every fault at any moment; the law is looked at after each step.

`pytest tests/stateful/test_use_cases.py --hypothesis-profile=long` runs 10,000 examples.
"""

import asyncio
from collections.abc import Generator
from contextlib import AsyncExitStack
from typing import ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as limits
from hypothesis.stateful import run_state_machine_as_test

from broker.attempts import Attempt
from broker.jobs import FINAL_STATES
from broker.services import Services, open_services
from broker.settings import Settings
from broker.store.processes import Facts
from providers.base import Part, Purge
from tests.simulation import SimulatedBell, SimulatedBlobs, SimulatedChanges, SimulatedKeyholder
from tests.stack import PipeGuard
from tests.use_cases import UseCases

WAITS_S = {
    "settle.WITHIN_S": 0.3,
    "settle.LOOK_AGAIN_S": 0.01,
    "cancel.WAIT_S": 0.02,
    "undoing.DISCARD_AGAIN_S": 0.01,
    "erasure.EVERY_S": 3600.0,
    "erasure.WITHIN_S": 0.5,
    "erasure.LEASE_S": 0.5,
    "erasure.PAUSE_S": 0.01,
}
"""Nothing waits for long, and nothing runs by itself."""


@pytest.fixture
def simulated(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Generator[type[UseCases]]:
    """The machine over services that are wired as always, with simulated stores, and nothing that waits for long."""
    monkeypatch.setattr("broker.store.keyholders.Keyholder", SimulatedKeyholder)
    for name, simulated in {
        "BlobStore": SimulatedBlobs,
        "Bell": SimulatedBell,
        "Changes": SimulatedChanges,
        "SWEEP_EVERY_S": 3600.0,
    }.items():
        monkeypatch.setattr(f"broker.services.{name}", simulated)
    for name, wait_s in WAITS_S.items():
        monkeypatch.setattr(f"broker.{name}", wait_s)
    quiet = msgspec.structs.replace(settings, rescue_every_s=3600.0, lease_s=3600.0, upload_idle_s=3600.0)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        pipe = PipeGuard()
        stack.callback(pipe.close)

        class Machine(UseCases):
            reached: ClassVar[set[str]] = set()

        Machine.runner = runner
        Machine.pipe = pipe
        Machine.services = runner.run(_open(stack, quiet, pipe))
        yield Machine
        runner.run(stack.aclose())


async def _open(stack: AsyncExitStack, settings: Settings, pipe: PipeGuard) -> Services:
    return await stack.enter_async_context(
        open_services(settings, role="broker", facts=Facts(), guard=pipe.guard, ask=_ask)
    )


async def _ask(attempt: Attempt) -> Purge | None:
    """The provider's answer, when it gives one."""
    return None if SimulatedBell.sky.provider_is_down else Purge(deleted=frozenset(Part))


def test_the_law_holds_under_every_fault(simulated: type[UseCases], settings: Settings) -> None:
    """No order of use cases, faults and times breaks I1 to I8, and everything ends."""
    run_state_machine_as_test(
        simulated,
        settings=limits(
            max_examples=limits().max_examples // 2,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
    assert simulated.reached >= {"receiving", "queued", "running", "settling", *FINAL_STATES}

"""How often the provider of an order is asked, on a clock that jumps."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from uuid import UUID, uuid4

import pytest

from broker.hints import Hints
from providers.base import Handle, Progress, Setup, Snapshot
from providers.failures import FailureKind, ProviderFailure
from tests.clock import run_at_once
from tests.desk import Desk
from workers.waiting import SLOWER, SLOWEST_S, OrderListener, Waiting

FIRST_S = 0.5
RUNNING = Snapshot(progress=Progress.RUNNING, poll_after_s=FIRST_S)
DONE = Snapshot(progress=Progress.SUCCEEDED)
BUSY = ProviderFailure(FailureKind.RATE_LIMITED, "busy")


class Listener(OrderListener):
    """Has a handle, and nowhere to store it."""

    def __init__(self) -> None:
        self.handle = Handle(id="a", operation="upscale")


class Bell(Hints):
    """Hints that a test gives itself."""

    def __init__(self) -> None:
        super().__init__(None)
        self.rung = asyncio.Event()

    def watch(self, attempt_id: UUID) -> AbstractContextManager[asyncio.Event]:
        return nullcontext(self.rung)


class Timed(Desk):
    """Notes when it is asked, and rings after the answer to one of the questions."""

    def __init__(self, answers: Sequence[object], bell: Bell, *, rings_after: int) -> None:
        super().__init__(Setup(base_url="", models={}))
        self._answers = list(answers)
        self._bell = bell
        self._rings_after = rings_after
        self.asked_at_s: list[float] = []

    async def poll(self, handle: Handle) -> Snapshot:
        self.asked_at_s.append(asyncio.get_running_loop().time())
        if len(self.asked_at_s) == self._rings_after:
            self._bell.rung.set()
        answer = self._answers.pop(0)
        if isinstance(answer, ProviderFailure):
            raise answer
        assert isinstance(answer, Snapshot)
        return answer


def pauses_s(*answers: object, rings_after: int = 0) -> list[float]:
    """Wait for an order that gets these answers; return how long each question was put off."""
    asked_at_s: list[float] = []

    async def wait() -> None:
        bell = Bell()
        provider = Timed(answers, bell, rings_after=rings_after)
        assert await Waiting(bell).until_done(provider, uuid4(), Listener(), RUNNING) is DONE
        asked_at_s.extend(provider.asked_at_s)

    run_at_once(wait())
    return [later - earlier for earlier, later in pairwise([0.0, *asked_at_s])]


def test_questions_come_more_and_more_seldom() -> None:
    """Each pause is half as long again as the one before, up to the longest."""
    for n, pause_s in enumerate(pauses_s(*[RUNNING] * 14, DONE)):
        assert pause_s == pytest.approx(min(FIRST_S * 1.5**n, SLOWEST_S), rel=0.201)


def test_no_two_orders_are_asked_about_in_step() -> None:
    """A pause is up to a fifth shorter or longer than it should be, and no two are the same."""
    longest_s = [pause_s / SLOWEST_S for pause_s in pauses_s(*[RUNNING] * 200, DONE)[20:]]
    assert 0.8 <= min(longest_s) < 0.9
    assert 1.1 < max(longest_s) <= 1.2
    assert len(set(longest_s)) == len(longest_s)


def test_a_hint_is_heard_at_once_and_begins_anew() -> None:
    """The question comes with the hint, and the next one after the provider's own time."""
    paused_s = pauses_s(*[RUNNING] * 8, DONE, rings_after=6)
    assert paused_s[6] == 0
    assert paused_s[7] == pytest.approx(FIRST_S, rel=0.201)
    assert paused_s[8] == pytest.approx(FIRST_S * SLOWER, rel=0.201)


def test_a_question_that_fails_is_put_off_for_longer_each_time() -> None:
    """Half as long again, up to the longest, and never sooner than the provider says."""
    later = ProviderFailure(FailureKind.RATE_LIMITED, "busy", after_s=4.0)
    expected_s = [1.5, 2.25, 4.0, 6.0, 9.0, 10.0, 10.0]
    assert pauses_s(BUSY, BUSY, later, *[BUSY] * 4, DONE)[1:] == pytest.approx(expected_s)

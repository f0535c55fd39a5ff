"""An event loop for tests whose clock jumps: whoever sleeps is woken at once, and minutes pass in no time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: the time for which it should have waited is added to the clock."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing is left that could ever happen"
        self.now_s += timeout
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s


def run_at_once(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end without waiting; for work that touches no network, process or thread."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(work)

"""Crash points discovered on jobs of every kind, and each of them tried: all, or a sample that a seed tells."""

import asyncio
import random
import traceback
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from tests.crash.kinds import KINDS, Kind
from tests.crash.lane import Lane, Outcome, open_lane
from tests.crash.points import Mode, Point

TRIAL_WITHIN_S = 240.0


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A job of a kind, a point, and what happens there."""

    kind: Kind
    point: Point
    mode: Mode


async def discover(lane: Lane, kinds: Sequence[Kind], told: Callable[[Kind, int], None]) -> dict[str, list[Point]]:
    """Run a job of each kind and return the points that it passes; of calls that need no job, only once."""
    idle = await lane.idle()
    restless = {point.call for point in idle}
    known: set[Point] = set()
    points: dict[str, list[Point]] = {}
    for kind in kinds:
        passed = await lane.points(kind, idle=idle)
        points[kind.name] = [point for point in passed if point not in known]
        known |= {point for point in passed if point.call in restless}
        told(kind, len(points[kind.name]))
    return points


def trials(points: dict[str, list[Point]], modes: Sequence[Mode]) -> list[Trial]:
    """Every point in every mode."""
    kinds = {kind.name: kind for kind in KINDS}
    return [
        Trial(kind=kinds[name], point=point, mode=mode)
        for mode in modes
        for name, found in points.items()
        for point in found
    ]


def sample(of: Sequence[Trial], *, seed: int, at_most: int) -> list[Trial]:
    """Choose some by a seed: as many of every role and mode as there is room for."""
    drawn = random.Random(seed)
    groups: dict[tuple[Mode, str], list[Trial]] = {}
    # In an order of their own: that in which processes pass their points differs from run to run.
    for trial in drawn.sample(sorted(of, key=lambda trial: (trial.mode, trial.kind.name, trial.point)), len(of)):
        groups.setdefault((trial.mode, trial.point.role), []).append(trial)
    chosen: list[Trial] = []
    while len(chosen) < min(at_most, len(of)):
        chosen += [group.pop() for group in groups.values() if group]
    return chosen[:at_most]


async def carry_out(of: Sequence[Trial], *, lanes: int, seed: int, told: Callable[[Outcome], None]) -> None:
    """Try them side by side, one at a time in each lane; a lane that breaks is a violation, and made anew."""
    waiting = deque(of)
    async with asyncio.TaskGroup() as tasks:
        for n in range(min(lanes, len(waiting))):
            tasks.create_task(_lane(waiting, seed=seed + n, told=told))


async def _lane(waiting: deque[Trial], *, seed: int, told: Callable[[Outcome], None]) -> None:
    while waiting:
        async with open_lane(seed=seed) as lane:
            while waiting:
                outcome = await _tried(lane, waiting.popleft())
                told(outcome)
                if outcome.is_broken:
                    break


async def _tried(lane: Lane, trial: Trial) -> Outcome:
    try:
        async with asyncio.timeout(TRIAL_WITHIN_S):
            return await lane.trial(trial.kind, trial.point, trial.mode)
    except Exception as exc:  # noqa: BLE001 - one broken trial is a finding, and no reason to lose the others
        lines = "".join(traceback.format_exception(exc)[-2:])
        return Outcome.broken(trial.kind, trial.point, trial.mode, f"broke: {lines}")

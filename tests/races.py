"""Sixty-four hands on one job, who cancel, finish, expire and rescue it at once, and what must be true afterwards."""

import argparse
import asyncio
import os
import random
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import redirect_stderr
from pathlib import Path

import msgspec

from broker.custody import Evidence
from broker.errors import IllegalTransition
from broker.jobs import Job, Outcome
from broker.log import capture_log, configure_log
from broker.services import Services
from broker.settings import Settings
from tests.lifecycle import claimed_job, final, held, keys_held, rows_of, run_sql
from tests.measured import keep
from tests.stack import Servers, as_if_hardened, own_database, pretend_worker, running_services, settings_for

OF_EACH = 16
LATE = "UPDATE jobs SET finish_by = now() - interval '1 second' WHERE id = $1"
DEAD = "UPDATE processes SET lease_until = now() - interval '1 hour' WHERE id = $1"
LOOK = """
SELECT state, outcome, charged, attempts, crashes, open_copies,
       (SELECT count(*) FROM receipts WHERE job_id = jobs.id) AS receipts
FROM jobs WHERE id = '{}'
"""


Hand = Callable[[Services], Coroutine[object, object, None]]


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What is so before the race: past its deadline or not, its worker dead or not."""

    is_late: bool
    is_dead: bool


class Race:
    """One job, two processes of ours, and everybody who may end it."""

    def __init__(self, settings: Settings, processes: tuple[Services, Services], job: Job) -> None:
        self._settings = settings
        self._processes = processes
        self._job = job
        self._said: list[Outcome] = []

    async def run(self, begins: Round, rng: random.Random) -> str:
        """Let all of them loose, wait for the end, and look at it; return the state in which the job ended."""
        if begins.is_late:
            await run_sql(self._settings, LATE, self._job.id)
        if begins.is_dead:
            await run_sql(self._settings, DEAD, self._job.owner)
        hands = [hand(services) for hand in self._hands() for services in self._processes * (OF_EACH // 2)]
        rng.shuffle(hands)
        with capture_log() as lines:
            await asyncio.gather(*hands)
            await final(self._processes[0], self._job)
        return await self._look(lines)

    def _hands(self) -> tuple[Hand, ...]:
        return self._cancel, self._finish, self._expire, self._rescue

    async def _cancel(self, services: Services) -> None:
        verdict = await services.cancellation.delete(self._job)
        if verdict.canceled:
            self._said.append(Outcome.CANCELED)

    async def _finish(self, services: Services) -> None:
        await self._end_well(services, self._job)

    async def _expire(self, services: Services) -> None:
        async with asyncio.TaskGroup() as tasks:
            await services.rescue.once(tasks)

    async def _rescue(self, services: Services) -> None:
        for rescued in await services.stores.jobs.rescue(max_crashes=3):
            again = await services.stores.jobs.claim(rescued.id, await pretend_worker(services))
            if again is not None:
                await self._end_well(services, again)

    async def _end_well(self, services: Services, running: Job) -> None:
        """The worker is done; where somebody else was faster it wipes what it held."""
        assert running.owner is not None
        try:
            settling = await services.stores.jobs.begin_settling(running, Outcome.SUCCEEDED, owner=running.owner)
        except IllegalTransition:
            await services.stores.custody.release(running.id, held(running), Evidence.OVERWRITTEN)
            return
        self._said.append(Outcome.SUCCEEDED)
        await services.settler.settle_or_postpone(settling, let_go=held(running))

    async def _look(self, lines: list[str]) -> str:
        (row,) = await rows_of(self._settings, LOOK.format(self._job.id))
        state: str = row["state"]
        assert len(self._said) <= 1, self._said
        assert not self._said or state == self._said[0]
        assert state == row["outcome"]
        assert (row["receipts"], row["open_copies"]) == (1, 0)
        assert row["charged"] == (state == Outcome.SUCCEEDED)
        assert row["attempts"] <= 1 + row["crashes"]
        assert row["crashes"] <= 1
        assert sum("job_finished" in line for line in lines) == 1
        return state


async def race(settings: Settings, rounds: int, *, seed: int) -> AsyncGenerator[str]:
    """Run so many rounds; yield the state that won each."""
    rng = random.Random(seed)
    async with running_services(settings) as one, running_services(settings) as other:
        await pretend_worker(one)
        before = await keys_held(one)
        for number in range(rounds):
            begins = Round(is_late=bool(number & 1), is_dead=bool(number & 2))
            yield await Race(settings, (one, other), await claimed_job(one)).run(begins, rng)
        assert await keys_held(one) == before


async def _long(servers: Servers, folder: Path, rounds: int, seed: int) -> Counter[str]:
    won = Counter[str]()
    async with own_database(servers) as dsn:
        async for state in race(settings_for(servers, dsn, folder), rounds, seed=seed):
            won[state] += 1
            sys.stdout.write(f"\r{won.total()} of {rounds} ")
            sys.stdout.flush()
    return won


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description="Let 64 hands race for one job, again and again.")
    parser.add_argument("rounds", type=int)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--report", type=Path, help="write the figures there, as JSON")
    arguments = parser.parse_args()
    configure_log(is_console=False)
    with as_if_hardened(), tempfile.TemporaryDirectory(prefix="lethe-races-") as folder:
        servers = Servers(Path(folder))
        try:
            sys.stdout.write(f"seed {arguments.seed}\n")
            # What services log, a hundred lines a round, is nothing to look at.
            with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
                won = asyncio.run(_long(servers, Path(folder), arguments.rounds, arguments.seed))
        finally:
            servers.stop()
    sys.stdout.write(f"{dict(won)}\n")
    if arguments.report is not None:
        figures = {"rounds": won.total(), "won": dict(won)}
        keep(arguments.report, f"make races ROUNDS={arguments.rounds} (seed {arguments.seed})", figures)


if __name__ == "__main__":
    main()

"""Sixty-four hands on one job; `python -m tests.races 1000` is the long form."""

import secrets

from broker.settings import Settings
from tests.races import race


async def test_sixty_four_hands_on_one_job_end_it_once(settings: Settings) -> None:
    """Cancels, finishes, deadlines and rescues at once: one outcome, one final receipt, one charge, whoever wins."""
    seed = secrets.randbits(32)
    won = [state async for state in race(settings, 12, seed=seed)]
    assert len(won) == 12, seed

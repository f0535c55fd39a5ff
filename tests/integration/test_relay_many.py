"""One relay worker process and hundreds of jobs that wait at one provider: what it holds, and that none is lost."""

from pathlib import Path

from bench.many import held
from bench.scale import Scale
from bench.stack import open_stack

DATA = Path(__file__).parents[2] / ".lethe" / "data"
JOBS = 200
"""`make bench` does it with 2,000, for which two busy cores take minutes; test_relay_crowd.py holds as many."""
MEMORY_MB = 500


async def test_one_worker_holds_many_jobs_at_a_provider(tmp_path: Path) -> None:
    """All are in flight at the same moment, all end well, each is asked about seldom, and memory stays small."""
    scale = Scale(relayed=JOBS, relayed_px=64, hold_s=5.0, spread_s=3.0)

    async with open_stack(tmp_path / "stack", data_directory=DATA) as stack:
        chapter = await held(stack, scale)

    figures = {figure.name: figure.value for figure in chapter.figures}
    assert figures["relay worker's peak RSS"] <= MEMORY_MB
    assert 0 < figures["questions"] <= JOBS

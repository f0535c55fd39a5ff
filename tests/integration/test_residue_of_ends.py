"""After each kind of end no process holds anything of an upload: not its picture, nor its words, nor its keys."""

from pathlib import Path

import pytest

from broker.forensics.markers import Place
from broker.settings import Settings
from tests.ends import DEADLINE_S, ENDS, LIVE, Kind, scene
from tests.process_memory import needs_root


@needs_root
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", Kind)
async def test_nothing_is_left_in_any_process(kind: Kind, end: str, settings: Settings, tmp_path: Path) -> None:
    """Broker, worker and keyholder with all below them; while the job runs, each is found to hold what it must."""
    cause, state, code = ENDS[end]
    async with scene(kind, settings, tmp_path) as scene_:
        inspection = scene_.inspection()
        await inspection.before()
        await scene_.order(finish_within_s=DEADLINE_S if end == "deadline" else 0)
        await scene_.until_held()
        await scene_.read_keys()
        live = await scene_.live(inspection)
        assert live["worker"] >= LIVE[kind], "the search finds what is there"
        assert Place.KEY in live["keyholder"]
        assert live["broker"] == set(), "a broker holds an upload only while it streams through"
        await cause(scene_)
        await scene_.phones.follow(scene_.job, within_s=60)
        assert (scene_.job.status, await scene_.code()) == (state, code)
        assert await scene_.left(inspection) == []

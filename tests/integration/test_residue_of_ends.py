"""After each kind of end no process holds anything of an upload: not its picture, nor its words, nor its keys."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from broker.forensics.markers import Place
from tests.checks import blob_faults
from tests.ends import DEADLINE_S, ENDS, LIVE, Kind, Scene, scene
from tests.process_memory import needs_root
from tests.stack import Servers, own_database, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """Everything, with a worker of one kind, for one end after the other."""
    folder = tmp_path_factory.mktemp("ends")
    async with own_database(servers) as dsn, scene(request.param, settings_for(servers, dsn, folder), folder) as made:
        yield made
    assert not blob_faults(folder / "blobs")


@needs_root
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("stage", Kind, indirect=True)
async def test_nothing_is_left_in_any_process(stage: Scene, end: str) -> None:
    """
    core-2, m2r-3: broker, worker and keyholder with all below them; while the job runs, each is found to hold what it
    must.
    """
    cause, state, code = ENDS[end]
    await stage.ready()
    inspection = stage.inspection()
    await inspection.before()
    await stage.order(finish_within_s=DEADLINE_S if end == "deadline" else 0)
    await stage.until_held()
    await stage.read_keys()
    live = await stage.live(inspection)
    assert live["worker"] >= LIVE[stage.kind], "the search finds what is there"
    assert Place.KEY in live["keyholder"]
    assert live["broker"] == set(), "a broker holds an upload only while it streams through"
    await cause(stage)
    await stage.phones.follow(stage.job, within_s=60)
    assert (stage.job.status, await stage.code()) == (state, code)
    assert await stage.left(inspection) == []

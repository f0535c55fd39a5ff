"""What the bell leaves in Redis is what arq itself would leave: the one format of arq that Lethe relies on, pinned."""

from typing import Any
from uuid import uuid4

import msgspec
from arq.jobs import deserialize_job

from broker.queue import TASK, queue_name
from broker.services import Services

POOL = "silent"


async def test_a_ring_is_an_arq_job(services: Services) -> None:
    """Payload, lifetime and queue are those of `enqueue_job`, so that stock arq takes it up; its score is no time."""
    ours, theirs = uuid4(), uuid4()
    await services.bell.ring(ours, fence=3, pool=POOL)
    await services.redis.enqueue_job(
        TASK, theirs.hex, _job_id=f"{theirs.hex}:3", _queue_name=queue_name(POOL), _expires=3600
    )

    stored = [await services.redis.get(f"arq:job:{job_id.hex}:3") for job_id in (ours, theirs)]
    rung, enqueued = [deserialize_job(data, deserializer=msgspec.msgpack.decode) for data in stored if data]

    assert (rung.function, list(rung.args), rung.kwargs, rung.job_try) == (TASK, [ours.hex], {}, enqueued.job_try)
    assert abs((rung.enqueue_time - enqueued.enqueue_time).total_seconds()) < 5
    redis: Any = services.redis  # redis-py's own types leave this open
    scores = await redis.zrange(queue_name(POOL), 0, -1, withscores=True)
    assert [name for name, _ in scores] == [f"{ours.hex}:3".encode(), f"{theirs.hex}:3".encode()]
    assert scores[0][1] == 1
    assert 0 < await services.redis.pttl(f"arq:job:{ours.hex}:3") <= 3_600_000


async def test_a_ring_that_arq_has_is_dropped(services: Services) -> None:
    """The same job under the same fence is one ring; another fence is another."""
    job_id = uuid4()

    for fence in (1, 1, 2):
        await services.bell.ring(job_id, fence=fence, pool=POOL)

    assert await services.bell.depth(POOL) == 2

"""The operator's own listener: figures, and health; never on the client's address."""

import msgspec
from litestar import Response, get

from broker.api.deps import Wired
from broker.api.health import PARTS, parts_down
from broker.metrics import CONTENT_TYPE, JobCount, Snapshot, render
from broker.services import Services


@get("/metrics")
async def get_metrics(services: Wired) -> Response[bytes]:
    """Show the figures in Prometheus' text format."""
    services.metrics.show(await take_snapshot(services))
    return Response(render(services.metrics.registry), media_type=CONTENT_TYPE)


async def take_snapshot(services: Services) -> Snapshot:
    """Count what Postgres knows."""
    jobs = services.stores.jobs
    counts = tuple(msgspec.convert(dict(row), JobCount) for row in await jobs.snapshot())
    uploads, oldest_s = await jobs.uploads_alive()
    return Snapshot(counts=counts, uploads=uploads, oldest_upload_s=oldest_s)


@get("/health")
async def get_operator_health(services: Wired) -> Response[dict[str, str]]:
    """Say which parts answer; 503 where one does not."""
    down = await parts_down(services)
    parts = {part: "down" if part in down else "ok" for part in PARTS}
    return Response(parts, status_code=503 if down else 200)

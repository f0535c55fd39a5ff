"""The operator's own listener: figures, and health; never on the client's address."""

import msgspec
from litestar import Response, get

from broker.api.deps import Wired
from broker.api.health import PARTS, parts_down
from broker.metrics import CONTENT_TYPE, JobCount, ProviderFigures, Snapshot, render
from broker.services import Services


@get("/metrics")
async def get_metrics(services: Wired) -> Response[bytes]:
    """Show the figures in Prometheus' text format."""
    services.metrics.show(await take_snapshot(services))
    services.metrics.show_providers(await look_at_providers(services))
    return Response(render(services.metrics.registry), media_type=CONTENT_TYPE)


async def take_snapshot(services: Services) -> Snapshot:
    """Count what Postgres knows."""
    jobs = services.stores.jobs
    counts = tuple(msgspec.convert(dict(row), JobCount) for row in await jobs.snapshot())
    uploads, oldest_s = await jobs.uploads_alive()
    purges = await services.stores.attempts.pending()
    requests, overdue = await services.stores.requests.counts()
    return Snapshot(
        counts=counts,
        uploads=uploads,
        oldest_upload_s=oldest_s,
        purges=purges,
        requests=requests,
        overdue_requests=overdue,
    )


async def look_at_providers(services: Services) -> dict[str, ProviderFigures]:
    """Ask Redis how the providers outside stand; while it is away they all take work, and nothing runs there."""
    outside = services.config.current.outside
    standings = await services.breaker.standings(list(outside))
    in_use = await services.slots.in_use(list(outside))
    return {
        name: ProviderFigures(state=standings[name].state, slots=provider.concurrency, in_use=in_use[name])
        for name, provider in outside.items()
    }


@get("/health")
async def get_operator_health(services: Wired) -> Response[dict[str, str]]:
    """Say which parts answer; 503 where one does not."""
    down = await parts_down(services)
    parts = {part: "down" if part in down else "ok" for part in PARTS}
    return Response(parts, status_code=503 if down else 200)

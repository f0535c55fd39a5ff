"""The worker's composition root: zygote before secrets, models warm before the first job, then the engine."""

import asyncio
import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import structlog
from prometheus_client import start_http_server

from broker.config import Config
from broker.guard import Guard
from broker.services import Services, open_services
from broker.settings import Settings
from broker.store.processes import Facts
from policies.registry import Profile
from providers.base import Provider
from workers.engine import WakingWorker
from workers.images.orders import ImageLimits
from workers.images.zygote import Zygote
from workers.models.registry import in_house, speeds
from workers.run_job import JobRun
from workers.runner import Runner

log = structlog.get_logger()

DRAIN_S = 3.0  # shorter than what a supervisor waits; what has not ended by then is handed back


def providers_of(pool: str, config: Config, settings: Settings) -> dict[str, Provider]:
    """Return the in-house providers, by model, that the configuration puts into this pool."""
    wanted = {provider.model for provider in config.providers.values() if provider.pool == pool}
    routed = {config.providers[name].model for route in config.routes.values() for name in route.providers}
    return {name: made for name, made in in_house(settings.models_dir).items() if name in wanted & routed}


async def work(settings: Settings, pool: str, *, guard: Guard, config: Config, profile: Profile) -> None:
    """Run one worker of a pool until SIGTERM or SIGINT."""
    stopping = _stopping()
    limits = ImageLimits(max_pixels=profile.limits.max_input_pixels)
    zygote = await Zygote.start(limits, children=settings.slots)
    providers = providers_of(pool, config, settings)
    try:
        for provider in providers.values():
            await provider.warm()
        async with open_services(
            settings, role="worker", facts=_facts(pool, config, providers), guard=guard
        ) as services:
            await _serve(services, zygote, providers, pool=pool, stopping=stopping)
    finally:
        for provider in providers.values():
            await provider.aclose()
        await zygote.aclose()


async def _serve(
    services: Services, zygote: Zygote, providers: Mapping[str, Provider], *, pool: str, stopping: asyncio.Event
) -> None:
    job_run = JobRun(services, zygote, providers)
    runner = Runner(services, attempt=job_run.attempt, conclude=job_run.conclude)
    engine = asyncio.create_task(WakingWorker(services, runner, pool=pool).main())
    with _metrics_server(services):
        log.info("worker_started", pool=pool, worker_id=str(services.lease.process.id))
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait({engine, stopped}, return_when=asyncio.FIRST_COMPLETED)
        is_broken = engine.done()
        engine.cancel()
        await asyncio.gather(engine, return_exceptions=True)
        await runner.drain(within_s=DRAIN_S)
        if is_broken:
            engine.result()  # raises: whoever supervises this process has to know
    log.info("worker_stopped", pool=pool)


def _facts(pool: str, config: Config, providers: Mapping[str, Provider]) -> Facts:
    routed = (name for name in config.operations if config.pool_of(name) == pool)
    return Facts(
        pool=pool,
        operations=tuple(name for name in routed if any(name in p.operations for p in providers.values())),
        speeds=speeds(providers),
    )


def _stopping() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


@contextmanager
def _metrics_server(services: Services) -> Generator[None, None, None]:
    host, _, port = services.settings.operator_listen.rpartition(":")
    server, thread = start_http_server(int(port), host, registry=services.metrics.registry)
    services.lease.tell(operator_address=f"http://{host}:{server.server_port}")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

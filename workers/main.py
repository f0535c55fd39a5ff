"""The worker's composition root: zygote before secrets, models warm before the first job, then the engine."""

import asyncio
import signal
from collections.abc import Coroutine, Generator, Mapping
from contextlib import contextmanager

import structlog
from prometheus_client import start_http_server

from broker.guard import Guard
from broker.reload import LiveConfig
from broker.routes import Config, InhouseProvider
from broker.services import Services, live_config, open_services
from broker.settings import Settings
from broker.store.processes import Facts
from policies.registry import Profile
from providers.base import Provider
from workers.adapters import Adapters
from workers.engine import WakingWorker
from workers.health import HealthChecks
from workers.images.orders import ImageLimits
from workers.images.zygote import Zygote
from workers.inside import Inside
from workers.models.registry import in_house, speeds
from workers.outside import Outside
from workers.purging import Purging
from workers.results import Results
from workers.route_walk import Attempts
from workers.run_job import JobRun
from workers.runner import Runner
from workers.seats import Seats

log = structlog.get_logger()

DRAIN_S = 3.0  # shorter than what a supervisor waits; what has not ended by then is handed back
ORDERS_DRAIN_S = 200.0  # longer than any order: one that is dropped may be done and paid for, and nobody ever knows
MOST_CHILDREN = 4


def models_of(pool: str, config: Config, settings: Settings) -> dict[str, Provider]:
    """Return the in-house models that the configuration puts into this pool."""
    configured = config.of_pool(pool).values()
    wanted = {provider.model for provider in configured if isinstance(provider, InhouseProvider)}
    return {name: made for name, made in in_house(settings.models_dir).items() if name in wanted}


async def work(
    settings: Settings, pool: str, *, guard: Guard, profile: Profile, stopping: asyncio.Event | None = None
) -> None:
    """Run one worker of a pool until it is told to stop: by SIGTERM or SIGINT, or by the event that is given."""
    stopping = stopping or _stopping()
    config = live_config(settings)
    models = models_of(pool, config.current, settings)
    slots = settings.slots_of(is_relay=not models)
    limits = ImageLimits(max_pixels=profile.limits.max_input_pixels)
    zygote = await Zygote.start(limits, children=min(slots, MOST_CHILDREN))
    adapters = Adapters(settings, pool, models=models)
    try:
        for model in models.values():
            await model.warm()
        await adapters.use(config.current)
        facts = Facts(pool=pool, providers=adapters.names, speeds=speeds(models))
        ask = Purging(adapters).ask
        async with open_services(settings, role="worker", facts=facts, guard=guard, config=config, ask=ask) as services:
            _follow(config, adapters, services)
            await _serve(services, zygote, adapters, pool=pool, slots=slots, stopping=stopping)
    finally:
        await adapters.aclose()
        await zygote.aclose()


async def _serve(
    services: Services, zygote: Zygote, adapters: Adapters, *, pool: str, slots: int, stopping: asyncio.Event
) -> None:
    seats = Seats(services.slots)
    attempts = _attempts(services, zygote, adapters, seats)
    job_run = JobRun(services, attempts)
    runner = Runner(
        services,
        attempt=job_run.attempt,
        conclude=job_run.conclude,
        is_ordering=attempts.is_ordering,
        slots=slots,
    )
    engine = asyncio.create_task(WakingWorker(services, runner, pool=pool).main())
    loops = _background(services, adapters, seats)
    with _metrics_server(services):
        log.info("worker_started", pool=pool, worker_id=str(services.lease.process.id))
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait({engine, stopped}, return_when=asyncio.FIRST_COMPLETED)
        is_broken = engine.done()
        engine.cancel()
        await asyncio.gather(engine, return_exceptions=True)
        await runner.drain(within_s=DRAIN_S, orders_within_s=ORDERS_DRAIN_S)
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        if is_broken:
            engine.result()  # raises: whoever supervises this process has to know
    log.info("worker_stopped", pool=pool)


def _attempts(services: Services, zygote: Zygote, adapters: Adapters, seats: Seats) -> Attempts:
    results = Results(services, zygote)
    outside = Outside(
        services,
        adapters,
        zygote,
        results=results,
        seats=seats,
        pictures_at_once=services.settings.pictures_at_once,
    )
    return Attempts(adapters, inside=Inside(services, adapters, zygote, results), outside=outside)


def _background(services: Services, adapters: Adapters, seats: Seats) -> list[asyncio.Task[None]]:
    """Start what goes on beside jobs; each loop lives through whatever its stores do."""
    health = HealthChecks(services.breaker, lambda: adapters.outside)
    loops: Mapping[str, Coroutine[object, object, None]] = {
        "seats": seats.run(),
        "purging": Purging(adapters).run(services),
        "health": health.run(),
    }
    return [asyncio.create_task(loop, name=name) for name, loop in loops.items()]


def _follow(config: LiveConfig, adapters: Adapters, services: Services) -> None:
    """Let a new configuration change the adapters, and the others know which providers run here."""
    tasks: set[asyncio.Task[None]] = set()
    config.check = adapters.check
    adapters.changed = lambda: services.lease.tell(providers=adapters.names)

    def used(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("adapters_not_changed", exc_info=task.exception())  # the former ones go on

    def use(fresh: Config) -> None:
        task = asyncio.create_task(adapters.use(fresh))
        tasks.add(task)
        task.add_done_callback(used)

    config.listen(use)


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

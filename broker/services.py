"""The only wiring: settings in, every store and use case out. Both composition roots start here."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from arq.connections import ArqRedis

from broker.agreement import require_agreement
from broker.breaker import Breaker
from broker.cancel import Cancellation
from broker.changes import Changes
from broker.door import Door
from broker.erasure import Erasure
from broker.fleet import Fleet
from broker.gallery import Gallery
from broker.guard import Guard
from broker.hints import Hints
from broker.intake import Intake
from broker.itself import facts_of, tell_of_itself
from broker.lease import Lease
from broker.metrics import Metrics
from broker.noticeboard import Noticeboard
from broker.notifier import Notifier
from broker.notify.senders import Senders, channels_of, load_senders
from broker.purges import AskProvider, Purges, ask_nobody
from broker.queue import Bell, connect
from broker.receipts import Signer
from broker.reload import LiveConfig
from broker.rescue import Rescue
from broker.sealing import Sealing
from broker.settings import Settings
from broker.settle import Settler
from broker.shops.redeeming import Redeeming, sellers_of
from broker.slots import Slots
from broker.store.blobs import BlobStore
from broker.store.database import Database
from broker.store.keyholders import Keyholders
from broker.store.processes import Facts, ProcessStore
from broker.store.signing_key import load_signer
from broker.store.stores import Stores, make_stores
from broker.submission import Patience
from broker.sweep import Sweep
from broker.watch import Watch
from policies.registry import Policies, load_profile

SWEEP_EVERY_S = 1.0


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a composition root hands to controllers, or to the runner of jobs."""

    settings: Settings
    config: LiveConfig
    policies: Policies
    metrics: Metrics
    stores: Stores
    heartbeat: Database
    redis: ArqRedis
    signer: Signer
    bell: Bell
    changes: Changes
    hints: Hints
    breaker: Breaker
    slots: Slots
    lease: Lease
    fleet: Fleet
    watch: Watch
    noticeboard: Noticeboard
    purges: Purges
    settler: Settler
    intake: Intake
    cancellation: Cancellation
    gallery: Gallery
    erasure: Erasure
    senders: Senders
    notifier: Notifier
    redeeming: Redeeming
    rescue: Rescue
    sweep: Sweep
    sealing: Sealing


@asynccontextmanager
async def open_services(
    settings: Settings,
    *,
    role: str,
    facts: Facts,
    guard: Guard,
    config: LiveConfig | None = None,
    ask: AskProvider = ask_nobody,
) -> AsyncGenerator[Services, None]:
    """
    Wire everything, take a lease, keep the background loops going, and let go of all of it at the end.

    `ask` speaks to providers for settle; only a relay worker has one that does.
    """
    more = facts.posture
    facts = msgspec.structs.replace(facts, posture=(*facts_of(guard), *more))
    services = _wire(settings, role=role, facts=facts, guard=guard, config=config or live_config(settings), ask=ask)
    await services.stores.database.open()
    await services.heartbeat.open()
    try:
        await services.lease.open()
        await services.stores.receipts.key_used(services.signer.vkey)
        if role == "broker":
            await services.noticeboard.publish()
        async with _running(
            services.lease.run(),
            tell_of_itself(services.lease, guard, more),
            services.changes.run(),
            services.hints.run(),
            services.config.run(),
            services.rescue.run(),
            services.sweep.run(),
            services.erasure.run(),
            services.sealing.run(),
            *([services.noticeboard.run(), services.notifier.run()] if role == "broker" else []),
        ):
            yield services
    finally:
        await _close(services)


@asynccontextmanager
async def _running(*loops: Coroutine[object, object, object]) -> AsyncGenerator[None, None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _close(services: Services) -> None:
    await services.intake.aclose()
    await services.senders.aclose()
    await services.redeeming.aclose()
    await services.lease.aclose()
    await services.stores.keys.aclose()
    await services.redis.aclose(close_connection_pool=True)
    await services.stores.database.aclose()
    await services.heartbeat.aclose()


def live_config(settings: Settings) -> LiveConfig:
    """Read lethe.toml, and be ready to read it again; raise ConfigInvalid."""
    policies = Policies(load_profile(settings.profile))
    return LiveConfig(settings.config_path, agree=lambda config: require_agreement(config, policies))


def _wire(
    settings: Settings, *, role: str, facts: Facts, guard: Guard, config: LiveConfig, ask: AskProvider
) -> Services:
    policies = Policies(load_profile(settings.profile))
    database = Database(settings.postgres_dsn, connections=settings.postgres_connections)
    stores = make_stores(database, Keyholders.of(settings), BlobStore(settings.blobs_url))
    redis = connect(settings.redis_url)
    signer = load_signer(Path(settings.receipt_key_file), settings.receipt_name)
    metrics, bell, changes, breaker = Metrics(), Bell(redis), Changes(redis), Breaker(redis)
    fleet = Fleet(stores.processes, stores.jobs, config=config, policies=policies, breaker=breaker)
    watch = Watch(stores, redis, fleet, settings=settings, signer=signer, profile=policies.profile)
    # A connection of its own: a busy process must not lose its lease in the queue for the others.
    heartbeat = Database(settings.postgres_dsn, connections=1)
    lease = Lease(ProcessStore(heartbeat), guard, role=role, lease_s=settings.lease_s, facts=facts)
    purges = Purges(stores, signer=signer, metrics=metrics, ask=ask, may_ask=lambda: lease.is_valid)
    settler = Settler(stores, signer=signer, changes=changes, policies=policies, metrics=metrics, purges=purges)
    # No worker reads what signs for us, or speaks for us to shops.
    senders, sellers = (load_senders(settings), sellers_of(settings)) if role == "broker" else (Senders(), {})
    intake = Intake(
        stores,
        bell=bell,
        changes=changes,
        settler=settler,
        door=Door(policies, fleet, watch, stores.consents, senders=senders),
        lease=lease,
        patience=Patience(idle_s=settings.upload_idle_s, within_s=settings.upload_within_s),
    )
    metrics.uploads_receiving.set_function(lambda: intake.receiving)
    metrics.know_providers(config.current.outside)
    config.listen(lambda fresh: metrics.know_providers(fresh.outside))
    lease.renewed, lease.let_go = intake.reconcile, intake.let_go
    rescue = Rescue(
        stores,
        settler=settler,
        bell=bell,
        fleet=fleet,
        lease=lease,
        every_s=settings.rescue_every_s,
        max_crashes=settings.max_crashes,
    )
    cancellation = Cancellation(stores, settler=settler, changes=changes, lease=lease)
    erasure = Erasure(stores, settler=settler, cancellation=cancellation, rights=policies.profile.rights)
    return Services(
        settings=settings,
        config=config,
        policies=policies,
        metrics=metrics,
        stores=stores,
        heartbeat=heartbeat,
        redis=redis,
        signer=signer,
        bell=bell,
        changes=changes,
        hints=Hints(redis),
        breaker=breaker,
        slots=Slots(redis),
        lease=lease,
        fleet=fleet,
        watch=watch,
        noticeboard=Noticeboard(
            stores.notices,
            policies,
            config,
            blobs_url=settings.blobs_url,
            channels=channels_of(settings),
            has_sign_in=bool(settings.subject_key_file),
        ),
        purges=purges,
        settler=settler,
        intake=intake,
        cancellation=cancellation,
        erasure=erasure,
        senders=senders,
        notifier=Notifier(stores, senders=senders, policies=policies, metrics=metrics),
        redeeming=Redeeming(sellers, credit_store=stores.credits, policy=policies.profile.credits, redis=redis),
        gallery=Gallery(stores, settler=settler),
        rescue=rescue,
        sweep=Sweep(
            stores,
            settler=settler,
            purges=purges,
            lease=lease,
            every_s=SWEEP_EVERY_S,
            retention=policies.profile.retention,
        ),
        sealing=Sealing(stores.audit, signer=signer, keep_for_s=policies.profile.retention.records_for_s),
    )

"""Looks at every part of the deployment, at start and every minute, and keeps the door shut while less is true."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError, ResponseError

from broker.errors import BrokerError, PostureUnmet
from broker.fleet import Fleet
from broker.frames import Memory
from broker.itself import hardening_facts
from broker.posture import KEYHOLDER_IS, REDIS_KEEPS, Fact, Part, Posture, Told, fact, judge, report
from broker.receipts import Signer, whole_seconds
from broker.routes import is_loopback
from broker.settings import Settings
from broker.store.keys import Keyholder
from broker.store.processes import Process
from broker.store.stores import Stores
from policies.posture import Demand
from policies.registry import Profile

log = structlog.get_logger()

EVERY_S = 60.0
UNMET_EVERY_S = 1.0
WITHIN_S = 2.0

TLS_SCHEMES = frozenset({"https", "rediss", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"})
ENFORCED_SSL = frozenset({"require", "verify-ca", "verify-full"})


class Watch:
    """The posture: of stores and keyholder a minute old at most, of processes a second; all a second while unmet."""

    def __init__(
        self, stores: Stores, redis: ArqRedis, fleet: Fleet, *, settings: Settings, signer: Signer, profile: Profile
    ) -> None:
        self._stores = stores
        self._redis: Any = redis  # redis-py's own types leave most of this open
        self._fleet = fleet
        self._settings = settings
        self._signer = signer
        self._profile = profile
        self._looking = asyncio.Lock()
        self._looked_s = float("-inf")
        self._keeps_versions: bool | None = None
        self._versions_asked_s = float("-inf")
        self._elsewhere: list[Told] = []
        self._told: list[Told] = []
        self._posture: Posture | None = None

    async def require(self) -> None:
        """Raise PostureUnmet, naming what is demanded and not true."""
        posture = await self.look()
        if not posture.is_met:
            named = ", ".join(f"{line.name} ({line.part}: {line.value})" for line in posture.unmet)
            raise PostureUnmet(f"this server's profile demands what is not true at the moment: {named}")

    async def note(self) -> str:
        """Return the posture as a signed note."""
        return self._signer.sign(await self.look())

    async def look(self) -> Posture:
        """Return what is found, looking again where that was too long ago; StoreUnavailable while Postgres is away."""
        async with self._looking:
            is_fresh = time.monotonic() - self._looked_s < self._fresh_s
            if not is_fresh:
                self._elsewhere = await self._look_elsewhere()
                self._looked_s = time.monotonic()
            told = [*(_told_by(process) for process in await self._fleet.alive()), *self._elsewhere]
            if self._posture is None or not is_fresh or told != self._told:
                self._told = told
                self._take(self._judge(told))
            assert self._posture is not None
            return self._posture

    async def run(self) -> None:
        """Look at once and then whenever it is time, until cancelled."""
        while True:
            try:
                await self.look()
            except BrokerError as exc:
                log.warning("posture_not_seen", code=exc.code)
            await asyncio.sleep(self._fresh_s)

    @property
    def _fresh_s(self) -> float:
        return EVERY_S if self._posture is not None and self._posture.is_met else UNMET_EVERY_S

    def _judge(self, told: Sequence[Told]) -> Posture:
        now, profile = whole_seconds(datetime.now(UTC)), self._profile
        return judge(told, demands=profile.posture.demands, profile=profile.name, checked_at=now)

    def _take(self, found: Posture) -> None:
        before, self._posture = self._posture, found
        if before is None or before.unmet != found.unmet:
            for line in found.unmet:
                log.error("posture_unmet", code=line.name, state=line.part)
            if found.is_met:
                log.info("posture_met", count=len(found.facts))

    async def _look_elsewhere(self) -> list[Told]:
        told = await asyncio.gather(self._keyholders(), self._all_stores())
        return [one for some in told for one in some]

    async def _keyholders(self) -> list[Told]:
        told = await asyncio.gather(*(_answer(partial(_keyholder, keyholder), ()) for keyholder in self._stores.keys))
        return [Told(part=Part.KEYHOLDER, facts=facts) for facts in told]

    async def _all_stores(self) -> list[Told]:
        keeps, redis = await asyncio.gather(self._versions(), self._redis_keeps())
        words = {True: "it keeps them", False: "none", None: "it does not tell"}
        facts = (
            fact(Demand.BLOBS_UNVERSIONED, is_so=keeps is False, value=words[keeps]),
            open_links(self._settings),
            report(REDIS_KEEPS, redis),
        )
        return [Told(part=Part.STORES, facts=facts)]

    async def _versions(self) -> bool | None:
        # To ask is to write: not every second, whatever else is unmet.
        if self._keeps_versions is None or time.monotonic() - self._versions_asked_s >= EVERY_S:
            self._versions_asked_s = time.monotonic()
            self._keeps_versions = await _answer(self._stores.blobs.keeps_versions, None)
        return self._keeps_versions

    async def _redis_keeps(self) -> str:
        try:
            async with asyncio.timeout(WITHIN_S):
                told = {**await self._redis.info("persistence"), **await self._redis.info("replication")}
                return redis_words(told, await self._saves())
        except (RedisError, OSError, TimeoutError):
            return "no answer"

    async def _saves(self) -> str | None:
        try:
            return str((await self._redis.config_get("save")).get("save", ""))
        except ResponseError:
            return None  # many hosted ones do not let it be asked


def _told_by(process: Process) -> Told:
    return Told(part=Part(process.role), facts=process.facts.posture)


async def _keyholder(keyholder: Keyholder) -> tuple[Fact, ...]:
    stats, incarnation = await keyholder.stats(), await keyholder.incarnation()
    return (
        *hardening_facts(stats.hardening),
        fact(Demand.KEYS_LOCKED, is_so=stats.memory is not Memory.PLAIN, value=stats.memory),
        fact(Demand.KEYS_HIDDEN, is_so=stats.memory is Memory.MEMFD_SECRET, value=stats.memory),
        report(KEYHOLDER_IS, incarnation.hex()),
    )


def redis_words(told: dict[str, object], saves: str | None) -> str:
    """Say what Redis writes down, and to whom."""
    snapshots = {None: ["perhaps snapshots"], "": []}.get(saves, ["snapshots"])
    log_file = ["append-only file"] if told.get("aof_enabled") else []
    count = int(str(told.get("connected_slaves", 0)))
    return ", ".join([*snapshots, *log_file, *([f"{count} replicas"] if count else [])]) or "nothing"


def open_links(settings: Settings) -> Fact:
    """State which stores are reached over a network without TLS, by what the settings insist on."""
    urls = {"postgres": settings.postgres_dsn, "redis": settings.redis_url, "blobs": settings.blobs_url}
    opened = [name for name, url in urls.items() if not is_private(url)]
    return fact(Demand.PRIVATE_LINKS, is_so=not opened, value=f"in the open: {', '.join(opened)}" if opened else "yes")


def is_private(url: str) -> bool:
    """Whether a store is on this machine, or its URL accepts nothing but TLS."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    hosts = [parts.hostname or "", *query.get("host", [])]
    is_here = parts.scheme in {"file", "unix"} or all(_is_here(host) for host in hosts if host)
    return is_here or parts.scheme in TLS_SCHEMES or query.get("sslmode", [""])[-1] in ENFORCED_SSL


def _is_here(host: str) -> bool:
    return host.startswith("/") or is_loopback(host)


async def _answer(ask: Callable[[], Awaitable[Any]], otherwise: Any) -> Any:
    """Await what a part says; one that is silent tells nothing."""
    try:
        async with asyncio.timeout(WITHIN_S):
            return await ask()
    except (BrokerError, TimeoutError):
        return otherwise

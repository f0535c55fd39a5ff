"""What an operator sees in figures: definitions on a registry of their own; no label carries an id."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from broker.attempts import Ended
from broker.circuits import CircuitState
from broker.telemetry import AppReport
from providers.failures import FailureKind

CONTENT_TYPE = CONTENT_TYPE_LATEST

_DESTROYED_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_APP_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_PROVIDER_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_CIRCUIT_VALUES = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}
_MODEL_S = (0.001, 0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


SUCCEEDED = "succeeded"


class Held(StrEnum):
    """What of an upload was still there after it was told to go."""

    KEY = "key"
    BLOB = "blob"
    HOLDER = "holder"


class AttemptResult(StrEnum):
    """How one run of a job at one provider ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    RETRIED = "retried"  # handed back to the queue
    STALE = "stale"  # no longer ours to end: canceled, decided or taken over elsewhere


class JobCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs stand alike, and how long ago the first of them was queued."""

    state: str
    operation: str
    pool: str
    jobs: int
    oldest_s: float = 0.0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What Postgres says at the moment of a scrape."""

    counts: tuple[JobCount, ...] = ()
    uploads: int = 0
    oldest_upload_s: float = 0.0
    purges: int = 0
    requests: int = 0
    overdue_requests: int = 0


class ProviderFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider outside stands for all processes together at the moment of a scrape."""

    state: CircuitState
    slots: int
    in_use: int


class Metrics:
    """The figures of one process, and those of the whole system where `show` was called."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._define_gauges()
        self.uploads_receiving = Gauge(
            "lethe_uploads_receiving", "Uploads that this process is reading.", registry=self.registry
        )
        self.attempts = Counter(
            "lethe_attempts",
            "Runs of a job in a worker, by how they ended.",
            ("operation", "result"),
            registry=self.registry,
        )
        self.model_seconds = Histogram(
            "lethe_model_seconds",
            "Time that a model worked on one job.",
            ("operation",),
            buckets=_MODEL_S,
            registry=self.registry,
        )
        self.destroyed_seconds = Histogram(
            "lethe_destroyed_seconds",
            "From the decision on a job's outcome until every copy of its upload was seen to be gone.",
            ("outcome",),
            buckets=_DESTROYED_S,
            registry=self.registry,
        )
        self.still_held = Counter(
            "lethe_still_held",
            "Times that something of an upload was still there after it was told to go. Must stay 0.",
            ("what",),
            registry=self.registry,
        )
        self.notifications = Counter(
            "lethe_notifications",
            "Times that somebody was to be told that a job has ended, by how that went.",
            ("channel", "outcome"),
            registry=self.registry,
        )
        of_app = ("event", "platform")
        self._app_events = Counter(
            "lethe_app_events", "What apps report of themselves.", of_app, registry=self.registry
        )
        self._app_seconds = Histogram(
            "lethe_app_seconds", "How long it took, as apps report.", of_app, buckets=_APP_S, registry=self.registry
        )
        # An alarm that appears only when it rings cannot be told from one that is not wired.
        for what in Held:
            self.still_held.labels(what=what)
        self._define_providers()

    def reported(self, report: AppReport) -> None:
        """Count what an app reports."""
        self._app_events.labels(event=report.event, platform=report.platform).inc()
        if report.duration_ms is not None:
            seconds = report.duration_ms / 1000
            self._app_seconds.labels(event=report.event, platform=report.platform).observe(seconds)

    def _define_gauges(self) -> None:
        self._jobs = Gauge("lethe_jobs", "Jobs.", ("state", "operation"), registry=self.registry)
        self._queued = Gauge("lethe_queue_jobs", "Jobs that wait for a worker.", ("pool",), registry=self.registry)
        self._queue_age = Gauge(
            "lethe_queue_oldest_seconds", "Age of the job that waits longest.", ("pool",), registry=self.registry
        )
        self._uploads = Gauge(
            "lethe_uploads_alive", "Uploads of which a copy of ours may exist.", registry=self.registry
        )
        self._upload_age = Gauge(
            "lethe_uploads_oldest_seconds", "Age of the upload alive longest.", registry=self.registry
        )
        self._requests = Gauge(
            "lethe_requests_open", "Requests of users by right that are open.", registry=self.registry
        )
        self._requests_overdue = Gauge(
            "lethe_requests_overdue",
            "Open requests past the day by which they had to be answered. Must stay 0.",
            registry=self.registry,
        )
        self._purges_pending = Gauge(
            "lethe_purge_pending",
            "Attempts whose copies a provider has still to be asked to delete.",
            registry=self.registry,
        )

    def _define_providers(self) -> None:
        by_provider = ("provider",)
        self._provider_state = Gauge(
            "lethe_provider_state",
            "Whether a provider gets work: 0 it does, 1 one attempt finds out, 2 it is left alone.",
            by_provider,
            registry=self.registry,
        )
        self._provider_slots = Gauge(
            "lethe_provider_slots", "Attempts that may run at a provider at once.", by_provider, registry=self.registry
        )
        self._provider_in_use = Gauge(
            "lethe_provider_slots_in_use", "Attempts that run at a provider.", by_provider, registry=self.registry
        )
        self._provider_attempts = Counter(
            "lethe_provider_attempts",
            "Attempts at a provider, by how they ended: succeeded, or the kind of failure.",
            ("provider", "result"),
            registry=self.registry,
        )
        self._provider_cost = Counter(
            "lethe_provider_cost_usd",
            "What attempts at a provider cost, as it says, else as expected.",
            by_provider,
            registry=self.registry,
        )
        self._provider_seconds = Histogram(
            "lethe_provider_seconds",
            "Time from the order until its outputs were kept and its job decided, where it succeeded.",
            by_provider,
            buckets=_PROVIDER_S,
            registry=self.registry,
        )
        self.purges = Counter(
            "lethe_purges",
            "Copies at providers, by what is known of them.",
            ("provider", "result"),
            registry=self.registry,
        )
        self.provider_unknown = Counter(
            "lethe_provider_unknown",
            "Attempts of which a provider has copies whose fate is unknown. Must stay 0.",
            by_provider,
            registry=self.registry,
        )

    def know_providers(self, names: Iterable[str]) -> None:
        """Show what is counted of these providers from now on, at 0 while there is nothing to count."""
        for name in names:
            self.provider_unknown.labels(provider=name)
            self._provider_cost.labels(provider=name)
            for result in (SUCCEEDED, *FailureKind):
                self._provider_attempts.labels(provider=name, result=result)

    def attempt_ended(self, ended: Ended | None) -> None:
        """Count an attempt at a provider outside that this process has ended; None was counted by who ended it."""
        if ended is None:
            return
        self._provider_attempts.labels(provider=ended.provider, result=ended.kind or SUCCEEDED).inc()
        self._provider_cost.labels(provider=ended.provider).inc(ended.cost_usd)
        if ended.kind is None:
            self._provider_seconds.labels(provider=ended.provider).observe(ended.took_s)

    def show_providers(self, figures: Mapping[str, ProviderFigures]) -> None:
        """Set the gauges of what all processes share; a provider that is no longer configured goes."""
        for gauge in (self._provider_state, self._provider_slots, self._provider_in_use):
            gauge.clear()
        for name, known in figures.items():
            self._provider_state.labels(provider=name).set(_CIRCUIT_VALUES[known.state])
            self._provider_slots.labels(provider=name).set(known.slots)
            self._provider_in_use.labels(provider=name).set(known.in_use)

    def show(self, snapshot: Snapshot) -> None:
        """Set the gauges that Postgres knows; what is no longer in the snapshot goes, or to 0 for a pool."""
        self._jobs.clear()
        waiting: dict[str, tuple[int, float]] = {count.pool: (0, 0.0) for count in snapshot.counts}
        for count in snapshot.counts:
            self._jobs.labels(state=count.state, operation=count.operation).inc(count.jobs)
            if count.state == "queued":
                jobs, oldest_s = waiting[count.pool]
                waiting[count.pool] = (jobs + count.jobs, max(oldest_s, count.oldest_s))
        self._queued.clear()
        self._queue_age.clear()
        for pool, (jobs, oldest_s) in waiting.items():
            self._queued.labels(pool=pool).set(jobs)
            self._queue_age.labels(pool=pool).set(oldest_s)
        self._uploads.set(snapshot.uploads)
        self._upload_age.set(snapshot.oldest_upload_s)
        self._purges_pending.set(snapshot.purges)
        self._requests.set(snapshot.requests)
        self._requests_overdue.set(snapshot.overdue_requests)


def render(registry: CollectorRegistry) -> bytes:
    """Write the figures in Prometheus' text format."""
    return generate_latest(registry)

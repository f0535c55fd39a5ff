"""The operator's figures: what is shown, and that nobody can be found in it."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from broker.attempts import Ended
from broker.circuits import CircuitState
from broker.jobs import JobState
from broker.metrics import CONTENT_TYPE, AttemptResult, Held, JobCount, Metrics, ProviderFigures, Snapshot, render
from broker.telemetry import AppEvent, AppReport, Platform
from providers.failures import FailureKind

LABELS = {"state", "operation", "pool", "outcome", "provider", "result", "what", "event", "platform", "le"}
METRICS_PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(render(metrics.registry).decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def count(state: JobState, operation: str, jobs: int, *, pool: str = "gpu", oldest_s: float = 0.0) -> JobCount:
    return JobCount(state=state, operation=operation, pool=pool, jobs=jobs, oldest_s=oldest_s)


def ended(kind: FailureKind | None, *, cost_usd: float = 0.0, took_s: float = 1.0) -> Ended:
    return Ended(provider="fal", kind=kind, cost_usd=cost_usd, took_s=took_s)


def test_gauges_show_what_postgres_says() -> None:
    """Jobs by state and operation, queue depth and age per pool, uploads alive and the age of the oldest."""
    metrics = Metrics()
    counts = (
        count(JobState.QUEUED, "upscale", 3, oldest_s=7.5),
        count(JobState.QUEUED, "restyle", 2, oldest_s=9.5),
        count(JobState.RUNNING, "upscale", 1, oldest_s=99.0),
        count(JobState.SUCCEEDED, "noop", 4, pool="relay"),
    )
    metrics.show(Snapshot(counts=counts, uploads=6, oldest_upload_s=12.5, purges=2))
    assert value(metrics, "lethe_jobs", state="queued", operation="upscale") == 3
    assert value(metrics, "lethe_jobs", state="running", operation="upscale") == 1
    assert value(metrics, "lethe_queue_jobs", pool="gpu") == 5
    assert value(metrics, "lethe_queue_oldest_seconds", pool="gpu") == 9.5
    assert value(metrics, "lethe_queue_jobs", pool="relay") == 0
    assert value(metrics, "lethe_uploads_alive") == 6
    assert value(metrics, "lethe_uploads_oldest_seconds") == 12.5
    assert value(metrics, "lethe_purge_pending") == 2


def test_jobs_of_one_kind_in_two_pools_are_added() -> None:
    """A gauge by state and operation does not lose the jobs of a second pool."""
    metrics = Metrics()
    counts = (count(JobState.QUEUED, "upscale", 3), count(JobState.QUEUED, "upscale", 4, pool="gpu2"))
    metrics.show(Snapshot(counts=counts))
    assert value(metrics, "lethe_jobs", state="queued", operation="upscale") == 7


def test_what_is_no_longer_there_is_no_longer_shown() -> None:
    """A second scrape leaves nothing of the first."""
    metrics = Metrics()
    metrics.show(Snapshot(counts=(count(JobState.QUEUED, "upscale", 3, oldest_s=5),), uploads=3, oldest_upload_s=5))
    metrics.show(Snapshot(counts=(count(JobState.SUCCEEDED, "upscale", 3),)))
    assert value(metrics, "lethe_jobs", state="queued", operation="upscale") is None
    assert value(metrics, "lethe_queue_jobs", pool="gpu") == 0
    assert value(metrics, "lethe_uploads_alive") == 0
    assert value(metrics, "lethe_uploads_oldest_seconds") == 0


def test_the_alarm_is_there_before_it_rings() -> None:
    """A still-held counter stands at 0 from the start for a key, a blob and a holder, and counts."""
    metrics = Metrics()
    assert [value(metrics, "lethe_still_held_total", what=what) for what in Held] == [0, 0, 0]
    metrics.still_held.labels(what=Held.KEY).inc()
    assert value(metrics, "lethe_still_held_total", what="key") == 1


def test_what_a_process_measures_is_shown() -> None:
    """Attempts, model seconds, time to destroyed, uploads being read."""
    metrics = Metrics()
    metrics.attempts.labels(operation="upscale", result=AttemptResult.SUCCEEDED).inc()
    metrics.model_seconds.labels(operation="upscale").observe(0.3)
    metrics.destroyed_seconds.labels(outcome="succeeded").observe(0.02)
    with metrics.uploads_receiving.track_inprogress():
        assert value(metrics, "lethe_uploads_receiving") == 1
    assert value(metrics, "lethe_uploads_receiving") == 0
    assert value(metrics, "lethe_attempts_total", operation="upscale", result="succeeded") == 1
    assert value(metrics, "lethe_model_seconds_sum", operation="upscale") == 0.3
    assert value(metrics, "lethe_destroyed_seconds_bucket", outcome="succeeded", le="0.025") == 1
    assert value(metrics, "lethe_destroyed_seconds_bucket", outcome="succeeded", le="0.01") == 0


def test_how_providers_stand_is_shown() -> None:
    """State, slots and slots in use of each provider; one that is no longer configured is no longer shown."""
    metrics = Metrics()
    figures = {
        "fal": ProviderFigures(state=CircuitState.OPEN, slots=8, in_use=3),
        "bfl": ProviderFigures(state=CircuitState.HALF_OPEN, slots=2, in_use=0),
        "runway": ProviderFigures(state=CircuitState.CLOSED, slots=4, in_use=4),
    }
    metrics.show_providers(figures)
    states = [value(metrics, "lethe_provider_state", provider=name) for name in ("runway", "bfl", "fal")]
    assert states == [0, 1, 2]
    assert value(metrics, "lethe_provider_slots", provider="fal") == 8
    assert value(metrics, "lethe_provider_slots_in_use", provider="fal") == 3
    metrics.show_providers({"fal": figures["fal"]})
    assert value(metrics, "lethe_provider_state", provider="bfl") is None
    assert value(metrics, "lethe_provider_slots", provider="bfl") is None
    assert value(metrics, "lethe_provider_slots_in_use", provider="bfl") is None


def test_the_alarms_of_a_provider_are_there_before_they_ring() -> None:
    """Unknown copies, refused credentials and an empty account stand at 0 for every provider that is known."""
    metrics = Metrics()
    metrics.know_providers(["fal", "bfl"])
    for name in ("fal", "bfl"):
        assert value(metrics, "lethe_provider_unknown_total", provider=name) == 0
        assert value(metrics, "lethe_provider_cost_usd_total", provider=name) == 0
        for result in ("succeeded", *FailureKind):
            assert value(metrics, "lethe_provider_attempts_total", provider=name, result=result) == 0
    metrics.provider_unknown.labels(provider="fal").inc()
    metrics.know_providers(["fal"])
    assert value(metrics, "lethe_provider_unknown_total", provider="fal") == 1


def test_attempts_at_providers_are_counted() -> None:
    """By how they ended, with what they cost; the time of those that succeeded; not those that somebody else ended."""
    metrics = Metrics()
    metrics.attempt_ended(ended(None, cost_usd=0.04, took_s=3.0))
    metrics.attempt_ended(ended(FailureKind.TIMEOUT, cost_usd=0.01, took_s=600.0))
    metrics.attempt_ended(ended(FailureKind.AUTH))
    metrics.attempt_ended(None)
    assert value(metrics, "lethe_provider_attempts_total", provider="fal", result="succeeded") == 1
    assert value(metrics, "lethe_provider_attempts_total", provider="fal", result="timeout") == 1
    assert value(metrics, "lethe_provider_attempts_total", provider="fal", result="auth") == 1
    assert value(metrics, "lethe_provider_cost_usd_total", provider="fal") == 0.05
    assert value(metrics, "lethe_provider_seconds_count", provider="fal") == 1
    assert value(metrics, "lethe_provider_seconds_sum", provider="fal") == 3


def test_every_figure_is_described() -> None:
    """docs/metrics.md has a row for each that is served, and for no other."""
    families = Metrics().registry.collect()
    served = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    described = re.findall(r"^\| `(lethe_[a-z_]+)` \|", METRICS_PAGE.read_text(), re.MULTILINE)
    assert len(described) == len(set(described))
    assert set(described) == served


def test_no_label_can_carry_an_id() -> None:
    """minimal-4, minimal-6: every label takes its values from a closed vocabulary; there is none for users or jobs."""
    metrics = Metrics()
    metrics.show(Snapshot(counts=(count(JobState.QUEUED, "upscale", 3),)))
    metrics.attempts.labels(operation="upscale", result=AttemptResult.FAILED).inc()
    metrics.model_seconds.labels(operation="upscale").observe(1)
    metrics.destroyed_seconds.labels(outcome="failed").observe(1)
    metrics.know_providers(["fal"])
    metrics.attempt_ended(ended(None))
    metrics.show_providers({"fal": ProviderFigures(state=CircuitState.CLOSED, slots=1, in_use=0)})
    metrics.purges.labels(provider="fal", result="unknown").inc()
    metrics.reported(AppReport(event=AppEvent.CRASH, platform=Platform.IOS, duration_ms=5))
    shown = {label for _, labels in samples(metrics) for label, _ in labels}
    assert shown == LABELS


def test_two_processes_in_one_do_not_share_figures() -> None:
    """Each Metrics has a registry of its own, so that tests and embedded stacks can stand side by side."""
    one, other = Metrics(), Metrics()
    one.still_held.labels(what=Held.BLOB).inc()
    assert value(other, "lethe_still_held_total", what="blob") == 0
    assert CONTENT_TYPE.startswith("text/plain")

"""What clients see of a job: flat, absent instead of null, whole seconds."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from broker.api.failures import describe_failure
from broker.cancel import Verdict
from broker.crypto.chunked import ciphertext_bytes
from broker.jobs import Job, JobState, Output
from broker.services import Services

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time in UTC, cut to the second."""

POLL_S = 1
MAX_POLL_S = 30

_HAS_PROGRESS = frozenset({JobState.RUNNING, JobState.SETTLING, JobState.SUCCEEDED})
_HAS_ERROR = frozenset({JobState.FAILED, JobState.EXPIRED})


class OutputView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One output of a job; URLs are relative to this server, `expires_at` is there where it ends before the others.

    A sealed one comes as `sealed_bytes` of ciphertext; media type and `bytes` are those of what is in it.
    """

    url: str
    expires_at: Moment | UnsetType = UNSET
    media_type: str
    bytes: int
    width: int
    height: int
    is_sealed: bool
    sealed_bytes: int | UnsetType = UNSET
    keys_url: str | UnsetType = UNSET
    thumbnail_url: str | UnsetType = UNSET


class JobView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job. `status` is an open set: expect words that are not known yet."""

    id: UUID
    operation: str
    status: str
    version: int
    created_at: Moment
    finalized_at: Moment | UnsetType = UNSET
    expires_at: Moment | UnsetType = UNSET
    progress: float | UnsetType = UNSET
    queue_position: int | UnsetType = UNSET
    eta_s: int | UnsetType = UNSET
    outputs: list[OutputView] | UnsetType = UNSET
    error_code: str | UnsetType = UNSET
    error_detail: str | UnsetType = UNSET
    started: bool | UnsetType = UNSET
    charged: bool
    cost_usd: float | UnsetType = UNSET
    exposure: str
    provider_copies: str


class JobPageView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Jobs of one user, newest first; without `next` there are no more."""

    items: list[JobView]
    next: str | UnsetType = UNSET


class NewJobView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a POST asks for; GET /v1/operations says which `parameters` an operation takes."""

    operation: str
    parameters: dict[str, Any] | UnsetType = UNSET
    start_within_s: float | UnsetType = UNSET
    finish_within_s: float | UnsetType = UNSET
    notify_webhook: str | UnsetType = UNSET
    notify_push: str | UnsetType = UNSET


class VerdictView(msgspec.Struct, frozen=True, kw_only=True):
    """What a DELETE has done; `pending` is still being destroyed."""

    id: UUID
    status: str
    canceled: bool
    charged: bool
    upload: str
    outputs: str


class Pace:
    """How long jobs of an operation took lately, as far as this process has seen them end."""

    UNKNOWN_S = 2.0
    WEIGHT = 0.2

    def __init__(self) -> None:
        self._took_s: dict[str, float] = {}

    def learn(self, job: Job) -> None:
        """Take the duration of a finished job into the average."""
        if job.state is JobState.SUCCEEDED and job.started_at and job.finalized_at:
            took_s = (job.finalized_at - job.started_at).total_seconds()
            known_s = self._took_s.get(job.operation, took_s)
            self._took_s[job.operation] = known_s + self.WEIGHT * (took_s - known_s)

    def eta_s(self, job: Job, ahead: int) -> int:
        """Expect so many seconds until a queued job is final."""
        return max(1, round((ahead + 1) * self._took_s.get(job.operation, self.UNKNOWN_S)))


async def show_job(services: Services, job: Job, pace: Pace, *, with_queue: bool = True) -> JobView:
    """Describe a job to its owner; its place in the queue costs a look at the others."""
    pace.learn(job)
    ahead = await services.stores.jobs.ahead(job) if with_queue and job.state is JobState.QUEUED else None
    outputs = await services.stores.custody.outputs(job.id) if job.state is JobState.SUCCEEDED else []
    urls = [_output(job, output) for output in outputs if not output.is_gone]
    has_error = job.state in _HAS_ERROR
    return JobView(
        id=job.public_id,
        operation=job.operation,
        status=job.state.value,
        version=job.version,
        created_at=whole_second(job.created_at),
        finalized_at=moment(job.finalized_at),
        expires_at=moment(job.outputs_until) if urls else UNSET,
        progress=round(job.progress, 3) if job.state in _HAS_PROGRESS else UNSET,
        queue_position=UNSET if ahead is None else ahead + 1,
        eta_s=UNSET if ahead is None else pace.eta_s(job, ahead),
        outputs=urls or UNSET,
        error_code=job.code if has_error else UNSET,
        error_detail=describe_failure(job.code) if has_error else UNSET,
        started=job.started_at is not None if job.state is JobState.EXPIRED else UNSET,
        charged=job.charged,
        cost_usd=round(job.cost_usd, 6) if job.cost_usd else UNSET,
        exposure=job.exposure if job.is_final else services.fleet.exposure_of(job.operation).value,
        provider_copies=job.provider_copies,
    )


def show_verdict(verdict: Verdict) -> VerdictView:
    """Say what was destroyed, and nothing that is not known yet."""
    job = verdict.job
    return VerdictView(
        id=job.public_id,
        status=job.state.value,
        canceled=verdict.canceled,
        charged=job.charged,
        upload="destroyed" if job.is_final else "pending",
        outputs="destroyed" if verdict.outputs_destroyed else "pending",
    )


def whole_second(at: datetime) -> datetime:
    """Cut a time to the second: formatters of phones refuse fractions."""
    return at.astimezone(UTC).replace(microsecond=0)


def retry_after_s(view: JobView) -> int:
    """Say when it pays to ask again."""
    return min(MAX_POLL_S, view.eta_s) if isinstance(view.eta_s, int) else POLL_S


def moment(at: datetime | None) -> datetime | UnsetType:
    """Cut a time to the second, where there is one."""
    return UNSET if at is None else whole_second(at)


def output_url(public_id: UUID, n: int) -> str:
    """Return where an output is fetched."""
    return f"/v1/jobs/{public_id}/outputs/{n}"


def _output(job: Job, output: Output) -> OutputView:
    url = output_url(job.public_id, output.n)
    return OutputView(
        url=url,
        expires_at=moment(output.destroy_at),
        media_type=output.media_type,
        bytes=output.size_bytes,
        width=output.width,
        height=output.height,
        is_sealed=output.is_sealed,
        sealed_bytes=ciphertext_bytes(output.size_bytes) if output.is_sealed else UNSET,
        keys_url=f"{url}/keys" if output.is_sealed else UNSET,
        thumbnail_url=f"{url}/thumbnail" if output.thumbnail else UNSET,
    )

"""What can be asked for right now."""

from typing import Any

import msgspec
from litestar import get
from msgspec import UNSET, UnsetType

from broker.api.deps import Wired
from broker.intake import FORM_FACTOR
from broker.operations import OPERATIONS
from broker.services import Services
from policies.base import Facts


class LimitsView(msgspec.Struct, frozen=True, kw_only=True):
    """What this server takes and makes, and by when a job has to start and to finish."""

    max_upload_bytes: int
    max_form_bytes: int
    max_input_pixels: int
    max_output_pixels: int
    start_within_s: int
    finish_within_s: int
    media_types: list[str]


class RetentionView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How long things stay: 0 for an upload says that it is gone before its job is final.

    Without `outputs_s` outputs stay until they are deleted.
    """

    upload_s: int
    outputs_s: int | UnsetType = UNSET
    records_s: int
    provider_s: int


class PicturesView(msgspec.Struct, frozen=True, kw_only=True):
    """How many pictures an operation takes, at least and at most."""

    min: int
    max: int


class OutputsView(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation makes (`image` or `video`: an open set), and how many at most."""

    kind: str
    max: int


class OperationView(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that a live worker can run; `parameters` is a JSON Schema object, `price` is in credits."""

    name: str
    description: str
    pictures: PicturesView
    outputs: OutputsView
    parameters: dict[str, Any]
    limits: LimitsView
    price: float
    exposure: str
    retention: RetentionView


class OperationListView(msgspec.Struct, frozen=True, kw_only=True):
    """The operations that can run right now."""

    items: list[OperationView]


@get("/v1/operations")
async def list_operations(services: Wired) -> OperationListView:
    """List the operations that can run right now."""
    running = await services.fleet.operations()
    return OperationListView(items=[_show(services, name) for name in OPERATIONS if name in running])


def _show(services: Services, name: str) -> OperationView:
    operation = OPERATIONS[name]
    return OperationView(
        name=name,
        description=operation.description,
        pictures=PicturesView(min=operation.pictures.min, max=operation.pictures.max),
        outputs=OutputsView(kind=operation.outputs.kind.value, max=operation.outputs.max),
        parameters=operation.schema(),
        limits=_limits(services),
        price=services.policies.profile.credits.price(name),
        exposure=services.fleet.exposure_of(name).value,
        retention=_retention(services, name),
    )


def _limits(services: Services) -> LimitsView:
    profile = services.policies.profile
    return LimitsView(
        max_upload_bytes=profile.limits.max_upload_bytes,
        max_form_bytes=profile.limits.max_upload_bytes * FORM_FACTOR,
        max_input_pixels=profile.limits.max_input_pixels,
        max_output_pixels=profile.limits.max_output_pixels,
        start_within_s=profile.deadlines.start_within_s,
        finish_within_s=profile.deadlines.finish_within_s,
        media_types=["image/jpeg", "image/png", "image/webp", "image/heic"],
    )


def _retention(services: Services, name: str) -> RetentionView:
    retained = services.policies.retain(Facts(operation=name))
    terms = services.fleet.terms(name)
    return RetentionView(
        upload_s=0,
        outputs_s=UNSET if retained.lifetime_s is None else retained.lifetime_s,
        records_s=retained.records_for_s,
        provider_s=max((one.retention_s for one in terms), default=0),
    )

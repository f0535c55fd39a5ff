"""Anonymous technical data: a report is counted and gone; no token is asked for, so that it is nobody's."""

import msgspec
from litestar import Response, post
from msgspec import UNSET, UnsetType

from broker.api.bodies import read_json, struct_in
from broker.api.deps import HttpRequest, Wired
from broker.telemetry import AppReport


class AppReportView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of an app; docs/metrics.md lists the words."""

    event: str
    platform: str
    duration_ms: int | UnsetType = UNSET


@post("/v1/telemetry")
async def take_report(request: HttpRequest, services: Wired) -> Response[None]:
    """Count an event of an app."""
    services.metrics.reported(read_report(await read_json(request, services)))
    return Response(None, status_code=204)


def read_report(data: bytearray) -> AppReport:
    """Read one report; raise InvalidParameter where a word or field is not on the list, which is never quoted."""
    return struct_in(
        data, AppReport, form="a report has `event`, `platform` and perhaps `duration_ms`, and nothing else"
    )

"""What a user is told by, over HTTP: a switch for each kind."""

import msgspec
from litestar import Response, get, put

from broker.api.bodies import read_object
from broker.api.deps import HttpRequest, Known, Wired
from broker.notifications import Kind
from broker.parameters import invalid


class NotificationsView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether each kind of notification is on: `webhook` tells the app's server, `push` the phone."""

    webhook: bool
    push: bool


@get("/v1/me/notifications")
async def get_notifications(services: Wired, caller: Known) -> NotificationsView:
    """Show what is on; all of it is, until it is switched off."""
    return _show(await services.stores.notifications.muted(caller.user_id))


@put("/v1/me/notifications")
async def put_notifications(request: HttpRequest, services: Wired, caller: Known) -> Response[NotificationsView]:
    """Switch each kind on or off; what waits of a kind that is off is destroyed, and no more of it is kept."""
    muted = read_switches(await read_object(request, services, names=frozenset(Kind)))
    return Response(_show(await services.stores.notifications.mute(caller.user_id, muted)), status_code=200)


def read_switches(order: dict[str, object]) -> frozenset[Kind]:
    """Read the body of a PUT as what is off; raise InvalidParameter with a pointer."""
    for kind in Kind:
        if not isinstance(order.get(kind), bool):
            raise invalid(kind, "is neither true nor false", at="#")
    return frozenset(kind for kind in Kind if not order[kind])


def _show(muted: frozenset[Kind]) -> NotificationsView:
    return NotificationsView(webhook=Kind.WEBHOOK not in muted, push=Kind.PUSH not in muted)

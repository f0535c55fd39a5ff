"""What controllers are given: the services, who asks, and whether this server is closing."""

import asyncio
from typing import TypeAlias

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency

from broker.api.views import Pace
from broker.errors import Unauthenticated
from broker.services import Services

MAX_TOKEN_CHARS = 256
BREACH = "breach"
"""Where the edge finds which breach the caller has not seen yet."""

HttpRequest: TypeAlias = Request[object, object, State]


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The user whose token came with the request."""

    user_id: str
    token: str

    def __repr__(self) -> str:
        """Never show the token."""
        return f"Caller({self.user_id})"


Wired = NamedDependency[Services]
Closing = NamedDependency[asyncio.Event]
Known = NamedDependency[Caller]
Seen = NamedDependency[Pace]


def bearer_token(request: HttpRequest) -> str:
    """Return the token that came with a request; raise Unauthenticated where it has none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not 0 < len(token) <= MAX_TOKEN_CHARS:
        raise Unauthenticated
    return token


async def provide_caller(request: HttpRequest, services: Wired) -> Caller:
    """Find the user of the bearer token; raise Unauthenticated."""
    token = bearer_token(request)
    user = await services.stores.users.look(token)
    if user is None:
        raise Unauthenticated("nobody has this token")
    if user.breach is not None:
        request.state[BREACH] = str(user.breach)
    return Caller(user_id=user.user_id, token=token)

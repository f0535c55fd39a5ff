"""What controllers are given: the services, who asks, and whether this server is closing."""

import asyncio
from typing import TypeAlias

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency

from broker.account_errors import CrossSite
from broker.api.edge import BREACH
from broker.api.views import Pace
from broker.errors import Unauthenticated
from broker.operators import OperatorKeys
from broker.services import Services
from broker.store.users import KnownUser

MAX_TOKEN_CHARS = 256
SESSION_COOKIE = "__Host-lethe"
NO_SESSION = "nobody has this session: it has ended, or never was"
SAFE_METHODS = frozenset({"GET", "HEAD"})

HttpRequest: TypeAlias = Request[object, object, State]
Operators: TypeAlias = NamedDependency[OperatorKeys]


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """What a request shows of who sends it: a bearer token, or the secret of a browser's session."""

    secret: str
    is_session: bool

    def __repr__(self) -> str:
        """Never show the secret."""
        return f"Credential({self.is_session})"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The user whose token, or session, came with the request; `token` is the secret of either."""

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


def credential_of(request: HttpRequest) -> Credential:
    """Return the bearer token that came with a request, or else its session; raise Unauthenticated, CrossSite."""
    secret = request.cookies.get(SESSION_COOKIE)
    if "authorization" in request.headers or secret is None:
        return Credential(secret=bearer_token(request), is_session=False)
    if not 0 < len(secret) <= MAX_TOKEN_CHARS:
        raise Unauthenticated(NO_SESSION)
    _require_same_origin(request)
    return Credential(secret=secret, is_session=True)


async def find_user(services: Services, credential: Credential) -> KnownUser | None:
    """Return whoever has a credential."""
    store = services.stores.sessions if credential.is_session else services.stores.users
    return await store.look(credential.secret)


async def user_of(services: Services, credential: Credential) -> KnownUser:
    """Return whoever has a credential; raise Unauthenticated."""
    user = await find_user(services, credential)
    if user is None:
        raise Unauthenticated(NO_SESSION if credential.is_session else "nobody has this token")
    return user


async def provide_caller(request: HttpRequest, services: Wired) -> Caller:
    """Find the user of the bearer token, or of the session; raise Unauthenticated, CrossSite."""
    credential = credential_of(request)
    user = await user_of(services, credential)
    if user.breach is not None:
        request.state[BREACH] = str(user.breach)
    return Caller(user_id=user.user_id, token=credential.secret)


def _require_same_origin(request: HttpRequest) -> None:
    # A browser sends the cookie whoever made the page; with it comes a word about that page which no script can set
    # (OWASP, Cross-Site Request Forgery Prevention: Fetch Metadata). What changes something needs it; a read may lack
    # it, or come from the address bar.
    site = request.headers.get("sec-fetch-site", "")
    if site != "same-origin" and (request.method not in SAFE_METHODS or site not in {"", "none"}):
        raise CrossSite


def operator_of(request: HttpRequest, operators: OperatorKeys) -> str:
    """Return the name of the operator whose key comes with a request; raise OperatorKeyRequired."""
    return operators.require(request.headers.get("authorization", ""))

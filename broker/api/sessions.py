"""Browser sessions over HTTP: a bearer token is exchanged for one cookie, and no other cookie is ever set."""

import msgspec
from litestar import Response, delete, post

from broker.api.deps import SESSION_COOKIE, HttpRequest, Wired, bearer_token, credential_of, user_of
from broker.api.views import Moment, whole_second
from broker.errors import Unauthenticated
from broker.store.sessions import IDLE_S, SESSION_S

# __Host-: from this host alone, over TLS, for the whole of it (RFC 6265bis). No script can read it, and no other site's
# page makes a browser send it.
_ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Strict"
_CLEARED = f"{SESSION_COOKIE}=; Max-Age=0; {_ATTRIBUTES}"


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """How long a session lasts: to the end, and without use, in seconds. Its secret is in the cookie alone."""

    ends_at: Moment
    idle_s: int


@post("/v1/me/session")
async def begin_session(request: HttpRequest, services: Wired) -> Response[SessionView]:
    """Begin a session of the bearer token's user; a session itself begins none, so that it ends for good."""
    token = bearer_token(request)
    if await services.stores.users.find(token) is None:
        raise Unauthenticated("nobody has this token")
    new = await services.stores.sessions.begin(token)
    cookie = f"{SESSION_COOKIE}={new.secret}; Max-Age={SESSION_S}; {_ATTRIBUTES}"
    view = SessionView(ends_at=whole_second(new.ends_at), idle_s=IDLE_S)
    return Response(view, status_code=201, headers={"Set-Cookie": cookie})


@delete("/v1/me/session")
async def end_session(request: HttpRequest, services: Wired) -> Response[None]:
    """End the session of the cookie; with a bearer token, every session of its user."""
    credential = credential_of(request)
    user_id = (await user_of(services, credential)).user_id
    if credential.is_session:
        await services.stores.sessions.end(credential.secret)
        return Response(None, status_code=204, headers={"Set-Cookie": _CLEARED})
    await services.stores.sessions.end_all(user_id)
    return Response(None, status_code=204)

"""Anonymous users over HTTP: nothing is asked, and nothing but an id and a token's hash is kept."""

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency

from broker.api.deps import HttpRequest, Wired
from broker.minting import Minting


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """A new user; the token is shown this once."""

    user_id: str
    token: str

    def __repr__(self) -> str:
        """Show the id alone."""
        return f"UserView({self.user_id})"


@post("/v1/users")
async def create_user(request: HttpRequest, services: Wired, minting: NamedDependency[Minting]) -> Response[UserView]:
    """Make an anonymous user."""
    peer = request.client.host if request.client else ""
    await minting.admit(peer, request.headers.getall("x-forwarded-for", []))
    new = await services.stores.users.mint()
    return Response(UserView(user_id=new.user_id, token=new.token), status_code=201)

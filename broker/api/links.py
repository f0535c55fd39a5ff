"""Links over HTTP, on the operator's listener: the app's own server tells to which anonymous user a sign-in belongs."""

from typing import Annotated, TypeVar

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency

from broker.account_errors import UserNotFound
from broker.api.bodies import read_json
from broker.api.deps import MAX_TOKEN_CHARS, HttpRequest, Wired
from broker.api.users import UserView
from broker.errors import InvalidParameter
from broker.operators import OperatorKeys
from broker.services import Services
from broker.subjects import Subjects

Operators = NamedDependency[OperatorKeys]
Hashed = NamedDependency[Subjects]
Order = TypeVar("Order")

FORM = "a subject is 64 hex digits in small letters; a link has the user's token too, and no more"

Subject = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""A digest that the app's server made of what it knows a user by: no e-mail address and no name can stand here."""


class SubjectView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose token is asked for, or whose link ends."""

    subject: Subject


class NewLinkView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A subject, and the token of the user whom it reaches from now on.

    The token, not the id: nobody is linked without having been asked, whoever holds an operator key and knows ids.
    """

    subject: Subject
    token: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TOKEN_CHARS)]

    def __repr__(self) -> str:
        """Never show the token."""
        return "NewLinkView()"


class LinkView(msgspec.Struct, frozen=True, kw_only=True):
    """A link, and whether this request made it."""

    user_id: str
    is_new: bool


@post("/links")
async def link_subject(
    request: HttpRequest, services: Wired, operators: Operators, subjects: Hashed
) -> Response[LinkView]:
    """Link a subject to a user; 409 where it is linked to another."""
    operators.require(request.headers.get("authorization", ""))
    order = await _read(request, services, NewLinkView)
    subject, user_id = subjects.hash(order.subject), await services.stores.users.find(order.token)
    if user_id is None:
        raise UserNotFound("nobody has this token")
    is_new = await services.stores.links.link(subject, user_id)
    return Response(LinkView(user_id=user_id, is_new=is_new), status_code=201 if is_new else 200)


@post("/links/token")
async def give_token(
    request: HttpRequest, services: Wired, operators: Operators, subjects: Hashed
) -> Response[UserView]:
    """Make a token of the user to whom a subject is linked, for one more device."""
    operators.require(request.headers.get("authorization", ""))
    order = await _read(request, services, SubjectView)
    new = await services.stores.links.add_token(subjects.hash(order.subject))
    return Response(UserView(user_id=new.user_id, token=new.token), status_code=201)


@post("/links/end", status_code=204)
async def unlink_subject(request: HttpRequest, services: Wired, operators: Operators, subjects: Hashed) -> None:
    """End a link, with the tokens and sessions that came of it."""
    operators.require(request.headers.get("authorization", ""))
    order = await _read(request, services, SubjectView)
    await services.stores.links.unlink(subjects.hash(order.subject))
    services.stores.users.forget_all()


async def _read(request: HttpRequest, services: Services, kind: type[Order]) -> Order:
    try:
        return msgspec.json.decode(await read_json(request, services), type=kind)
    except msgspec.DecodeError as exc:
        raise InvalidParameter(FORM) from exc

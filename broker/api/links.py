"""Links over HTTP, on the operator's listener: the app's own server tells to which anonymous user a sign-in belongs."""

from typing import Annotated

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency

from broker.account_errors import UserNotFound
from broker.api.bodies import read_json, struct_in
from broker.api.deps import MAX_TOKEN_CHARS, HttpRequest, Operators, Wired, operator_of
from broker.api.users import UserView
from broker.subjects import Subjects

Hashed = NamedDependency[Subjects]

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
    operator_of(request, operators)
    order = struct_in(await read_json(request, services), NewLinkView, form=FORM)
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
    operator_of(request, operators)
    order = struct_in(await read_json(request, services), SubjectView, form=FORM)
    new = await services.stores.links.add_token(subjects.hash(order.subject))
    return Response(UserView(user_id=new.user_id, token=new.token), status_code=201)


@post("/links/end", status_code=204)
async def unlink_subject(request: HttpRequest, services: Wired, operators: Operators, subjects: Hashed) -> None:
    """End a link, with the tokens and sessions that came of it."""
    operator_of(request, operators)
    order = struct_in(await read_json(request, services), SubjectView, form=FORM)
    await services.stores.links.unlink(subjects.hash(order.subject))
    services.stores.users.forget_all()

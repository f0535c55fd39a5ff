"""Answers OPTIONS with every method of an address: the framework names those of the first handler alone."""

from collections.abc import Iterable
from http import HTTPStatus

from litestar import HttpMethod, Response
from litestar.handlers import HTTPRouteHandler


def answer_options(handlers: Iterable[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """Make one more handler for each address; they have to be registered before the others."""
    methods: dict[str, set[str]] = {}
    for handler in handlers:
        for path in handler.paths:
            methods.setdefault(path, {HttpMethod.OPTIONS.value}).update(handler.http_methods)
    return [_naming(path, ", ".join(sorted(allowed))) for path, allowed in methods.items()]


def _naming(path: str, allowed: str) -> HTTPRouteHandler:
    async def name_methods() -> Response[None]:
        return Response(None, status_code=HTTPStatus.NO_CONTENT, headers={"Allow": allowed})

    return HTTPRouteHandler(path, http_method=HttpMethod.OPTIONS, status_code=HTTPStatus.NO_CONTENT)(name_methods)

"""The part of the OpenAPI document on sessions of browsers; links are on the operator's listener, and not in it."""

from broker.api.openapi_parts import Json, answer, operation, problems
from broker.api.sessions import SessionView

SIGN_IN_VIEWS: list[type[object]] = [SessionView]


def session_path() -> Json:
    """Describe the path."""
    begun = answer("The session; its secret is in the cookie alone.", SessionView, headers=("Set-Cookie",))
    ended = {"204": {"description": "It has ended."}, **problems(401, 403, 503)}
    return {
        "post": operation("beginSession", "Exchange the token for a cookie", {"201": begun, **problems(401, 503)}),
        "delete": operation("endSession", "End a browser's session, or with the token all of them", ended),
    }

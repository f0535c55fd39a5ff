"""The part of the OpenAPI document on what a user has: credits, purchases, the record, notifications, sessions."""

from broker.api.audit import AuditPageView
from broker.api.credits import AccountView, BalanceView
from broker.api.notifications import NotificationsView
from broker.api.openapi_parts import CURSOR, LIMIT, Json, answer, body, operation, problems
from broker.api.purchases import NewPurchaseView
from broker.api.sessions import SessionView

MINE_VIEWS: list[type[object]] = [
    *(AccountView, BalanceView, NewPurchaseView, AuditPageView, NotificationsView, SessionView),
]


def mine_paths() -> Json:
    """Describe the paths."""
    account = answer("What the user has, and the newest entries.", AccountView)
    credit = operation("getCredits", "Show your credits", {"200": account, **problems(401, 503)})
    done = {"200": answer("What was done, newest first.", AuditPageView), **problems(400, 401, 422, 503)}
    audit = operation("listAudit", "List what was done to your data", done, [LIMIT, CURSOR])
    return {
        "/v1/me/credits": {"get": credit},
        "/v1/me/purchases": {"post": _purchase()},
        "/v1/me/audit": {"get": audit},
        "/v1/me/session": _session(),
        "/v1/me/notifications": _notifications(),
    }


def _purchase() -> Json:
    had = answer("The account; this user had these credits already.", BalanceView)
    granted = {**had, "description": "The account, with the credits of the purchase."}
    redeeming = operation("redeemPurchase", "Redeem a receipt of a shop", {"200": had, "201": granted})
    redeeming["requestBody"] = body(NewPurchaseView)
    redeeming["responses"] |= problems(400, 401, 409, 413, 415, 422, 429, 501, 503)
    return redeeming


def _session() -> Json:
    # Links are on the operator's listener, and not in this document.
    begun = answer("The session; its secret is in the cookie alone.", SessionView, headers=("Set-Cookie",))
    ended = {"204": {"description": "It has ended."}, **problems(401, 403, 503)}
    return {
        "post": operation("beginSession", "Exchange the token for a cookie", {"201": begun, **problems(401, 503)}),
        "delete": operation("endSession", "End a browser's session, or with the token all of them", ended),
    }


def _notifications() -> Json:
    shown = answer("What is on.", NotificationsView)
    seeing = operation("getNotifications", "Show which notifications are on", {"200": shown, **problems(401, 503)})
    switching = operation("putNotifications", "Switch notifications on and off", {"200": shown})
    switching["requestBody"] = body(NotificationsView)
    switching["responses"] |= problems(400, 401, 413, 415, 422, 503)
    return {"get": seeing, "put": switching}

"""A browser has one cookie: what it lets in, from which pages, until when, and that there is no other."""

import re
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest
from litestar.handlers import HTTPRouteHandler

from broker.api.rights import delete_me
from broker.app import CLIENT_ROUTES, OPERATOR_ROUTES
from broker.operators import new_key
from broker.settings import Settings
from broker.store.sessions import IDLE_S, MOST_SESSIONS, SESSION_S
from tests.api_client import Api
from tests.brokers import broker_with
from tests.browsers import Browser, browser_of, secret_in
from tests.lifecycle import count, rows_of, run_sql
from tests.stack import upload_bytes

COOKIE = re.compile(
    r"__Host-lethe=lethe_session_[A-Za-z0-9_-]{43}; Max-Age=86400; Path=/; Secure; HttpOnly; SameSite=Strict"
)
CLEARED = "__Host-lethe=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Strict"


async def test_a_browser_gets_one_cookie(api: Api, settings: Settings) -> None:
    """headpix-6, headpix-9: of the bearer's user; it sees the results and can do what the phone can."""
    done = await api.finished(b"a portrait")
    answer = await api.http.post("/v1/me/session", headers=api.auth)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "private, no-store"
    [cookie] = answer.headers.get_list("set-cookie")
    assert COOKIE.fullmatch(cookie)
    assert answer.json().keys() == {"ends_at", "idle_s"}

    browser = Browser(api, secret_in(answer))
    listed = await browser.ask("GET", "/v1/outputs")
    assert [item["url"] for item in listed.json()["items"]] == [f"/v1/jobs/{done['id']}/outputs/0"]
    assert (await browser.ask("GET", f"/v1/jobs/{done['id']}/outputs/0")).content == b"a portrait"
    sent = await browser.ask("PUT", f"/v1/jobs/{uuid4()}?operation=noop", body=upload_bytes())
    assert sent.status_code == 202
    assert (await browser.ask("DELETE", f"/v1/jobs/{done['id']}")).status_code == 200
    assert (await rows_of(settings, "SELECT octet_length(hash) AS n FROM sessions"))[0]["n"] == 32


@pytest.mark.parametrize("secret", ["lethe_session_" + "x" * 43, "x", "", "y" * 5_000, "token", "one; other=2"])
async def test_a_forged_session_is_refused(api: Api, secret: str) -> None:
    """401 with a problem and nothing else: no cookie, nothing done; a bearer token is no session."""
    done = await api.finished(b"a portrait")
    browser = Browser(api, api.token if secret == "token" else secret)
    for method, path in (("GET", "/v1/me"), ("DELETE", f"/v1/jobs/{done['id']}"), ("DELETE", "/v1/me/session")):
        answer = await browser.ask(method, path)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.json()["detail"] == "nobody has this session: it has ended, or never was"
        assert answer.headers["content-type"] == "application/problem+json"
        assert "set-cookie" not in answer.headers
    assert (await browser.ask("DELETE", "/v1/me")).status_code == 401
    assert (await api.get(f"/v1/jobs/{done['id']}/outputs/0")).content == b"a portrait"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "", None, "same-origin, cross-site"])
async def test_another_page_changes_nothing(api: Api, site: str | None) -> None:
    """403 where a page of another origin, or of which nothing is said, sends what changes something."""
    done = await api.finished(b"a portrait")
    browser = await browser_of(api)
    for method, path in (
        ("PUT", f"/v1/jobs/{uuid4()}?operation=noop"),
        ("POST", "/v1/me/objections"),
        ("DELETE", f"/v1/jobs/{done['id']}/outputs/0"),
        ("DELETE", "/v1/me/session"),
        ("DELETE", "/v1/me"),
    ):
        answer = await browser.ask(method, path, site=site, body=upload_bytes() if method == "PUT" else None)
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site"), (method, path)
        assert "set-cookie" not in answer.headers
    assert (await browser.ask("GET", f"/v1/jobs/{done['id']}/outputs/0")).content == b"a portrait"
    assert (await api.get("/v1/me")).json()["jobs"] == {"succeeded": 1}


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), (None, 200), ("same-site", 403), ("cross-site", 403)]
)
async def test_another_page_reads_nothing(api: Api, site: str | None, status: int) -> None:
    """A read may come from the address bar, or from a browser too old to say; never from another page."""
    assert (await (await browser_of(api)).ask("GET", "/v1/me", site=site)).status_code == status


async def test_a_bearer_token_needs_no_page(api: Api) -> None:
    """No browser adds one by itself: apps and servers say nothing of pages, and a cookie beside it does not count."""
    browser = await browser_of(api)
    answer = await browser.ask("GET", "/v1/me", site="cross-site", Authorization=api.auth["Authorization"])
    assert answer.status_code == 200
    forged = await browser.ask("GET", "/v1/me", Authorization="Bearer lethe_wrong")
    assert forged.status_code == 401


async def test_a_session_begins_no_session(api: Api) -> None:
    """Nor is its secret a bearer token: it cannot outlive its day."""
    browser = await browser_of(api)
    assert (await browser.ask("POST", "/v1/me/session")).status_code == 401
    answer = await api.http.post("/v1/me/session", headers={"Authorization": f"Bearer {browser.secret}"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


async def test_signing_out_ends_it(api: Api, settings: Settings) -> None:
    """By the cookie: that one, and the browser drops it. By the token: every browser, at once."""
    browsers = [await browser_of(api) for _ in range(3)]
    ended = await browsers[0].ask("DELETE", "/v1/me/session")
    assert (ended.status_code, ended.headers.get_list("set-cookie")) == (204, [CLEARED])
    assert [(await one.ask("GET", "/v1/me")).status_code for one in browsers] == [401, 200, 200]
    ended = await api.delete("/v1/me/session")
    assert (ended.status_code, "set-cookie" in ended.headers) == (204, False)
    assert [(await one.ask("GET", "/v1/me")).status_code for one in browsers] == [401, 401, 401]
    assert await count(settings, "sessions") == 0
    assert (await api.get("/v1/me")).status_code == 200


async def test_signing_out_holds_in_every_broker(api: Api, settings: Settings) -> None:
    """At once: no process remembers a session."""
    browser = await browser_of(api)
    async with broker_with(settings) as other:
        elsewhere = Browser(other, browser.secret)
        assert (await elsewhere.ask("GET", "/v1/me")).status_code == 200
        await browser.ask("DELETE", "/v1/me/session")
        assert (await elsewhere.ask("GET", "/v1/me")).status_code == 401


async def test_a_session_has_an_end(api: Api, settings: Settings) -> None:
    """A day in all, an hour without use, whatever comes first; what has ended is swept."""
    assert (SESSION_S, IDLE_S) == (86_400, 3_600)
    old, idle, used = [await browser_of(api) for _ in range(3)]
    left = "extract(epoch FROM idle_until - now()) AS idle_s, extract(epoch FROM ends_at - now()) AS s"
    by_end = "WHERE hash = sha256($1::text::bytea)"
    await run_sql(settings, f"UPDATE sessions SET ends_at = now() {by_end}", old.secret)
    await run_sql(settings, f"UPDATE sessions SET idle_until = now() {by_end}", idle.secret)
    soon = "SET idle_until = now() + interval '60 s', ends_at = now() + interval '7200 s'"
    await run_sql(settings, f"UPDATE sessions {soon} {by_end}", used.secret)
    assert [(await one.ask("GET", "/v1/me")).status_code for one in (old, idle, used)] == [401, 401, 200]

    await api.services.sweep.records()
    [row] = await rows_of(settings, f"SELECT {left} FROM sessions")
    assert 3_500 < row["idle_s"] <= 3_600
    assert row["s"] <= 7_200


async def test_a_user_has_so_many_sessions(api: Api, settings: Settings) -> None:
    """One more ends the oldest: a token cannot fill the table."""
    first, second = await browser_of(api), await browser_of(api)
    for _ in range(MOST_SESSIONS - 1):
        await browser_of(api)
    assert await count(settings, "sessions") == MOST_SESSIONS
    assert [(await one.ask("GET", "/v1/me")).status_code for one in (first, second)] == [401, 200]


async def test_a_browser_uses_every_right(api: Api, settings: Settings) -> None:
    """core-6: the export, and erasure; asked again by the same cookie the answer is the same request."""
    browser = await browser_of(api)
    document = (await browser.ask("GET", "/v1/me/export")).json()
    assert [session.keys() for session in document["sessions"]] == [{"ends_at", "idle_until"}]
    erased = await browser.ask("DELETE", "/v1/me")
    assert (erased.status_code, erased.json()["request"]["status"]) == (200, "completed")
    assert [await count(settings, table) for table in ("users", "sessions")] == [0, 0]
    assert (await browser.ask("DELETE", "/v1/me")).json()["request"] == erased.json()["request"]
    assert (await browser.ask("GET", "/v1/me")).status_code == 401


async def test_no_route_sets_another_cookie(settings: Settings, tmp_path: Path) -> None:
    """headpix-6: no route of either listener does, with a credential or without; none lets another origin in."""
    key, line = new_key("app")
    (tmp_path / "operators").write_text(line + "\n")
    async with broker_with(msgspec.structs.replace(settings, operator_keys_file=str(tmp_path / "operators"))) as api:
        begun: list[str] = []
        for url, auth, handlers in (
            (api.url, api.auth, CLIENT_ROUTES),
            (api.operator_url, {"Authorization": f"Bearer {key}"}, OPERATOR_ROUTES),
        ):
            for handler in sorted(handlers, key=lambda one: one is delete_me):  # the last: nobody is left after it
                answers = [answer for headers in ({}, auth) for answer in await asked(api, url, headers, handler)]
                for answer in answers:
                    assert "access-control-allow-origin" not in answer.headers
                    begun += [f"{handler.paths}" for _ in answer.headers.get_list("set-cookie")]
        assert begun == ["{'/v1/me/session'}"]  # the one that was asked for with a token


async def asked(api: Api, url: str, headers: dict[str, str], handler: HTTPRouteHandler) -> list[httpx.Response]:
    """Ask one route by each of its methods, and by OPTIONS as a page of another origin would."""
    [path] = handler.paths
    address = url + re.sub(r"\{[a-z_]+(:[a-z]+)?\}", lambda found: "0" if found[1] == ":int" else str(uuid4()), path)
    methods = sorted(str(method) for method in handler.http_methods)
    said = {**headers, "Origin": "https://elsewhere.example", "Content-Type": "application/json"}
    return [await api.http.request(method, address, headers=said, content=b"{}") for method in [*methods, "OPTIONS"]]

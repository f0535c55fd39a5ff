"""A browser as tests play it: it has one cookie, and says with each request what kind of page sends it."""

import httpx

from tests.api_client import Api
from tests.checks import plant


class Browser:
    """Whoever has the cookie of a session."""

    def __init__(self, api: Api, secret: str) -> None:
        self.api = api
        self.secret = secret

    async def ask(
        self, method: str, path: str, *, site: str | None = "same-origin", body: bytes | None = None, **headers: str
    ) -> httpx.Response:
        """Send a request from a page of the same origin, unless `site` says otherwise; None: an old browser."""
        said = {} if site is None else {"Sec-Fetch-Site": site}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Cookie": f"__Host-lethe={self.secret}", **said, **named}
        return await self.api.http.request(method, path, content=body, headers=sent)


async def browser_of(api: Api) -> Browser:
    """Sign a browser in."""
    answer = await api.http.post("/v1/me/session", headers=api.auth)
    assert answer.status_code == 201, answer.text
    return Browser(api, plant(secret_in(answer)))


def secret_in(answer: httpx.Response) -> str:
    """What the cookie holds that an answer sets."""
    return answer.headers["set-cookie"].partition(";")[0].partition("=")[2]

"""The audit record over HTTP: a user reads what was done to the own data, and nobody else's."""

import pytest

from tests.api_client import Api


async def events(api: Api) -> list[dict[str, str]]:
    return (await api.get("/v1/me/audit?limit=100")).json()["items"]


async def test_a_user_reads_what_was_done(api: Api) -> None:
    """xpictures-3: newest first, jobs by the id that the user knows; each time that an output is sent is in it."""
    job = await api.finished(b"an output")
    await api.get(f"/v1/jobs/{job['id']}/outputs/0")
    for part in ("0-1", "1-3", "2-"):  # of one minute: one event
        await api.get(f"/v1/jobs/{job['id']}/outputs/0", Range=f"bytes={part}")
    await api.http.head(f"/v1/jobs/{job['id']}/outputs/0", headers=api.auth)
    await api.get("/v1/me/export")
    found = await events(api)
    assert [(event["event"], event["detail"]) for event in found[:3]] == [
        ("request_made", "access"),
        ("output_served", "output 0 part"),
        ("output_served", "output 0"),
    ]
    assert [event["event"] for event in found].count("output_served") == 2
    assert found[1]["job"] == job["id"]
    assert found[-1] == {"at": found[-1]["at"], "event": "user_made"}
    exported = (await api.get("/v1/me/export")).json()["audit_events"]
    assert [event["event"] for event in exported[: len(found)]] == [event["event"] for event in reversed(found)]


async def test_pages_go_on_where_the_one_before_ended(api: Api) -> None:
    """As the gallery's do; a cursor of somebody's own making is refused."""
    await api.finished(b"an output")
    whole = await events(api)
    seen: list[dict[str, str]] = []
    page = (await api.get("/v1/me/audit?limit=2")).json()
    seen += page["items"]
    while "next" in page:
        page = (await api.get(f"/v1/me/audit?limit=2&cursor={page['next']}")).json()
        seen += page["items"]
    assert seen == whole


@pytest.mark.parametrize("cursor", ["x", "AAAA", "%C3%BC", "A" * 30])
async def test_a_cursor_that_is_none_is_refused(api: Api, cursor: str) -> None:
    """400, with the code."""
    refused = await api.get(f"/v1/me/audit?cursor={cursor}")
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_cursor")


async def test_nobody_reads_of_others(api: Api) -> None:
    """Another user's record has none of it, and without a token there is none."""
    await api.finished(b"an output")
    mine = len(await events(api))
    other = (await api.http.post("/v1/users")).json()["token"]
    theirs = await api.http.get("/v1/me/audit", headers={"Authorization": f"Bearer {other}"})
    assert [event["event"] for event in theirs.json()["items"]] == ["user_made"]
    assert len(await events(api)) == mine
    assert (await api.http.get("/v1/me/audit")).status_code == 401


async def test_the_head_is_shown_to_whoever_wants_to_keep_it(api: Api) -> None:
    """Number and hash of the newest batch: a phone that keeps them can show later that nothing before was changed."""
    assert "head" not in (await api.get("/v1/me/audit")).json()
    await api.services.sealing.once()
    head = await api.services.stores.audit.head()
    assert head is not None
    assert (await api.get("/v1/me/audit")).json()["head"] == {"number": 1, "hash": head.hash}

"""The export: everything that is held about a user, in its schema, whole or visibly broken off, and kept nowhere."""

from pathlib import Path

import httpx
import jsonschema
import msgspec
import pytest

from broker.export import WITHHELD
from broker.settings import Settings
from broker.store import requests
from broker.store.files import statements
from broker.store.held import OF_JOB, OF_USER
from tests.api_client import Api
from tests.lifecycle import rows_of

SCHEMA = Path(__file__).parents[2] / "docs" / "export.schema.json"


async def user_of(api: Api) -> str:
    user_id = await api.services.stores.users.find(api.token)
    assert user_id is not None
    return user_id


async def test_the_export_has_everything_in_its_schema(api: Api) -> None:
    """xpictures-9, headpix-5: jobs with custody and receipts, consents, credits, requests; complete, kept nowhere."""
    done = await api.finished(b"an output")
    await api.queued()
    await api.services.stores.credits.grant(await user_of(api), 5, reference="order-1")
    answer = await api.get("/v1/me/export")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    document = answer.json()
    jsonschema.validate(document, msgspec.json.decode(SCHEMA.read_bytes()))
    assert document["is_complete"] is True
    assert document["user"]["id"] == await user_of(api)
    assert document["jobs"][0]["id"] == done["id"]
    assert document["jobs"][0]["receipts"][0]["note"] == (await api.get(f"/v1/jobs/{done['id']}/receipt")).text
    assert len(document["jobs"][0]["custody"]) >= 3
    assert len(document["jobs"][0]["outputs"]) == 1
    assert document["accounts"] == [{"credits": 5, "held": 0}]
    assert [entry["kind"] for entry in document["credit_entries"]] == ["granted"]
    assert [request["kind"] for request in document["requests"]] == ["access"]
    assert document["request"] == document["requests"][0]["id"]
    assert "null" not in answer.text


async def test_an_export_breaks_off_when_its_user_is_erased(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a document cannot be taken for a whole one."""
    await api.finished(b"an output")
    user_id, held = await user_of(api), api.services.stores.held
    ask = held.user
    calls = 0

    async def erased_meanwhile(of: str) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            await api.services.erasure.ask(api.token, user_id)
        return await ask(of)

    monkeypatch.setattr(held, "user", erased_meanwhile)
    with pytest.raises(httpx.RemoteProtocolError):
        await api.get("/v1/me/export")


async def test_an_export_is_asked_for_by_either_right(api: Api) -> None:
    """The same document; the request says which."""
    document = (await api.get("/v1/me/export?right=portability")).json()
    assert [request["kind"] for request in document["requests"]] == ["portability"]
    refused = await api.get("/v1/me/export?right=erasure")
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/parameters/right")


async def test_exports_are_counted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many a day, then 429: making one costs more than asking for it."""
    monkeypatch.setattr(requests, "MOST_A_DAY", 2)
    assert [(await api.get("/v1/me/export")).status_code for _ in range(3)] == [200, 200, 429]


async def test_everything_that_is_about_a_user_is_exported_or_withheld(settings: Settings) -> None:
    """A new table or column has to be named in sql/held.sql, or withheld for a reason."""
    refers = """
        SELECT child.relname AS name, parent.relname AS to, confdeltype AS goes FROM pg_constraint
        JOIN pg_class AS child ON child.oid = conrelid JOIN pg_class AS parent ON parent.oid = confrelid
        WHERE contype = 'f' AND parent.relname IN ('users', 'accounts', 'devices', 'jobs')
    """
    found = await rows_of(settings, refers)
    # What does not go by itself with its user or job would hold up every erasure.
    assert {(row["name"], row["to"]) for row in found if row["goes"] not in {b"c", b"n"}} == {("jobs", "users")}
    about = {row["name"] for row in found} | {"users", "audit_events"}  # joined by a pseudonym, so that it can stay
    assert about == {"users", "jobs", *OF_USER, *OF_JOB}
    withheld = {column for of in WITHHELD for column in of.columns}
    columns = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    for row in await rows_of(settings, columns):
        table, column = row["table_name"], row["column_name"]
        if table in about and column not in {"user_id", "job_id"} and f"{table}.{column}" not in withheld:
            block = statements("held")["user" if table == "users" else table]
            words = block.replace(",", " ").replace(".", " ").split()
            assert column in words, f"{table}.{column}"

"""Breaches: everybody concerned is told through the app, and an authority gets the record that Art. 33 asks for."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from broker.settings import Settings
from tests.api_client import Api
from tests.brokers import broker_with
from tests.lifecycle import count, run_sql
from tests.operators import Operators

FACTS = {
    "nature": "A backup was copied.",
    "data": "Times of jobs, about 1,000 rows.",
    "consequences": "Somebody may know when jobs ran.",
    "measures": "The backup is deleted.",
    "contact": "privacy@studio.example",
}


@pytest.fixture
def operators(settings: Settings, tmp_path: Path) -> Operators:
    return Operators(settings, tmp_path)


@pytest.fixture
async def broker(operators: Operators) -> AsyncGenerator[Api]:
    async with broker_with(operators.settings) as api:
        yield api


def breach(**changed: Any) -> dict[str, Any]:
    return {"facts": FACTS, "aware_at": datetime.now(UTC).isoformat(), **changed}


async def test_everybody_concerned_is_told(broker: Api, operators: Operators, settings: Settings) -> None:
    """xpictures-11: every answer says that there is one, /v1/me says what; the record counts who saw it."""
    other = (await broker.http.post("/v1/users")).json()["token"]
    declared = await operators.ask(broker, "alice", "POST", "/breaches", breach())
    record = declared.json()
    assert (declared.status_code, record["users_told"]) == (201, 0)
    assert record["users_concerned"] == await count(settings, "users") >= 2
    broker.services.stores.users.forget_all()  # what this process remembers for five seconds

    assert (await broker.get("/v1/jobs")).headers["lethe-breach"] == record["id"]
    assert (await broker.get("/v1/me/credits")).headers["lethe-breach"] == record["id"]
    (shown,) = (await broker.get("/v1/me")).json()["breaches"]
    assert (shown["nature"], shown["measures"]) == (FACTS["nature"], FACTS["measures"])
    assert "data" not in shown
    broker.services.stores.users.forget_all()
    assert "lethe-breach" not in (await broker.get("/v1/jobs")).headers  # it was told
    assert (await broker.http.get("/v1/jobs", headers={"Authorization": f"Bearer {other}"})).headers["lethe-breach"]

    later = (await operators.ask(broker, "bob", "GET", f"/breaches/{record['id']}")).json()
    assert later["users_told"] == 1
    assert await count(settings, "audit_events", "event = 'breach_told'") == 1
    assert await count(settings, "audit_events", "event = 'breach_noted'") == record["users_concerned"]
    assert len((await broker.get("/v1/me/export")).json()["breach_users"]) == 1


async def test_only_those_of_the_time_are_told(broker: Api, operators: Operators, settings: Settings) -> None:
    """xpictures-11: with a time, those of whom there was a job or anything was done in it, and nobody else."""
    await broker.finished(b"an output")
    await run_sql(settings, "UPDATE jobs SET created_at = now() - interval '2 days'")
    now = datetime.now(UTC)
    past = {"since": (now - timedelta(days=3)).isoformat(), "until": (now - timedelta(days=1)).isoformat()}
    await broker.http.post("/v1/users")  # of whom there was nothing then
    assert (await operators.ask(broker, "alice", "POST", "/breaches", breach(**past))).json()["users_concerned"] == 1
    done = {"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(seconds=1)).isoformat()}
    by_record = await operators.ask(broker, "alice", "POST", "/breaches", breach(**done))
    assert by_record.json()["users_concerned"] == await count(settings, "users") >= 2
    long_ago = {"since": (now - timedelta(days=9)).isoformat(), "until": (now - timedelta(days=8)).isoformat()}
    assert (await operators.ask(broker, "alice", "POST", "/breaches", breach(**long_ago))).json()[
        "users_concerned"
    ] == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"facts": {**FACTS, "nature": ""}},
        {"facts": {name: value for name, value in FACTS.items() if name != "measures"}},
        {"aware_at": "yesterday"},
        {"aware_at": "2026-11-26T12:00:00"},
        {"aware_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()},
        {"aware_at": (datetime.now(UTC) - timedelta(hours=80)).isoformat()},
        {"since": "2026-11-26T12:00:00Z"},
        {"since": "2026-11-26T12:00:00Z", "until": "2026-11-25T12:00:00Z"},
        {"who": "x"},
    ],
)
async def test_a_breach_is_checked(broker: Api, operators: Operators, changed: dict[str, Any]) -> None:
    """Every fact that the article asks for, times with zones, and a reason where it is late."""
    answer = await operators.ask(broker, "alice", "POST", "/breaches", breach(**changed))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


async def test_a_breach_stays_as_it_was_declared(broker: Api, operators: Operators, settings: Settings) -> None:
    """Neither changed nor deleted; one that is not there is said, and only an operator asks."""
    await operators.ask(broker, "alice", "POST", "/breaches", breach())
    for statement in ("UPDATE breaches SET facts = '{}'", "DELETE FROM breaches"):
        with pytest.raises((asyncpg.CheckViolationError, asyncpg.ForeignKeyViolationError)):
            await run_sql(settings, statement)
    nowhere = "/breaches/00000000-0000-4000-8000-000000000000"
    missing = await operators.ask(broker, "alice", "GET", nowhere)
    assert (missing.status_code, missing.json()["code"]) == (404, "breach_not_found")
    for method, path in (("GET", nowhere), ("POST", "/breaches")):
        assert (await operators.ask(broker, broker.token, method, path, {})).status_code == 401


async def test_the_commands_write_the_record(broker: Api, operators: Operators, tmp_path: Path) -> None:
    """xpictures-11: `lethe breach declare FILE`, the record in Markdown with every letter of Art. 33(3), and JSON."""
    file = tmp_path / "breach.toml"
    lines = [f'{name} = "{value}"' for name, value in FACTS.items()]
    file.write_text("\n".join([f"aware_at = {datetime.now(UTC).isoformat()}", "[facts]", *lines]))
    declared = await said(broker, operators, "breach", "declare", str(file))
    assert declared.exit_code == 0, declared.output
    breach_id = declared.stdout.split()[1].rstrip(",")
    written = (await said(broker, operators, "breach", "record", breach_id)).stdout
    for part in (*FACTS.values(), "(a)", "(b)", "(c)", "(d)", breach_id):
        assert part in written
    assert (
        '"users_concerned"' in (await said(broker, operators, "breach", "record", breach_id, "--format", "json")).stdout
    )
    file.write_text("x")
    assert (await said(broker, operators, "breach", "declare", str(file))).exit_code == 1


async def said(api: Api, operators: Operators, *words: str) -> Result:
    command = [*words, "--operator-url", api.operator_url, "--key-file", "-"]
    return await asyncio.to_thread(CliRunner().invoke, main, command, input=operators.keys["alice"])

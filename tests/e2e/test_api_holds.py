"""Holds and the removal of a child over HTTP: operators with keys of their own, and a user who sees it."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from broker.settings import Settings
from tests.api_client import Api
from tests.brokers import broker_with
from tests.lifecycle import count, eventually
from tests.operators import Operators


@pytest.fixture
def operators(settings: Settings, tmp_path: Path) -> Operators:
    return Operators(settings, tmp_path)


@pytest.fixture
async def broker(operators: Operators) -> AsyncGenerator[Api]:
    async with broker_with(operators.settings) as api:
        yield api


async def user_of(api: Api) -> str:
    user_id = await api.services.stores.users.find(api.token)
    assert user_id is not None
    return user_id


async def proposed(api: Api, operators: Operators) -> dict[str, Any]:
    body = {"user_id": await user_of(api), "reference": "court/17"}
    answer = await operators.ask(api, "alice", "POST", "/holds", body)
    assert (answer.status_code, answer.json()["state"]) == (201, "proposed")
    return answer.json()


async def test_a_hold_is_placed_by_two_and_seen_by_its_user(broker: Api, operators: Operators) -> None:
    """headpix-4, xpictures-4: with one key nothing happens; in the summary, the export and the record it is seen."""
    hold = await proposed(broker, operators)
    assert "holds" not in (await broker.get("/v1/me")).json()
    again = await operators.ask(broker, "alice", "POST", f"/holds/{hold['id']}/confirm")
    assert (again.status_code, again.json()["code"]) == (403, "second_operator_required")

    confirmed = (await operators.ask(broker, "bob", "POST", f"/holds/{hold['id']}/confirm")).json()
    assert (confirmed["state"], confirmed["confirmed_by"]) == ("in_force", "bob")
    assert (await broker.get("/v1/me")).json()["holds"] == [
        {"reference": "court/17", "since": confirmed["confirmed_at"]}
    ]
    (exported,) = (await broker.get("/v1/me/export")).json()["holds"]
    assert (exported["reference"], exported["confirmed_at"]) == ("court/17", confirmed["confirmed_at"])
    events = (await broker.get("/v1/me/audit")).json()["items"]
    assert {("hold_proposed", "court/17 by alice"), ("hold_placed", "court/17 by bob")} <= {
        (event["event"], event.get("detail")) for event in events
    }

    ended = (await operators.ask(broker, "alice", "DELETE", f"/holds/{hold['id']}")).json()
    assert ended["state"] == "ended"
    assert "holds" not in (await broker.get("/v1/me")).json()
    listed = (await operators.ask(broker, "bob", "GET", "/holds")).json()["items"]
    assert [one["state"] for one in listed] == ["ended"]


async def test_an_erasure_says_that_records_are_held(broker: Api, operators: Operators) -> None:
    """headpix-4: 202 without Retry-After, `is_held`; the output is gone; when the hold has ended, everything is."""
    job = await broker.finished(b"an output")
    hold = await proposed(broker, operators)
    await operators.ask(broker, "bob", "POST", f"/holds/{hold['id']}/confirm")
    answer = await broker.delete("/v1/me")
    request = answer.json()["request"]
    assert (answer.status_code, request["is_held"], "Retry-After" in answer.headers) == (202, True, False)
    assert (await broker.get(f"/v1/jobs/{job['id']}/outputs/0")).status_code == 410
    assert (await broker.put(b"x" * 100)).status_code in {409, 415}

    await operators.ask(broker, "bob", "DELETE", f"/holds/{hold['id']}")
    await broker.services.erasure.go_on()
    shown = (await broker.http.get(f"/v1/privacy/requests/{request['id']}")).json()
    assert shown["status"] == "completed"
    assert "is_held" not in shown


@pytest.mark.parametrize("path", ["/holds", "/children"])
async def test_only_an_operator_orders(broker: Api, operators: Operators, path: str) -> None:
    """401 without a key that the file lists, for a user's token too; the clients' listener has no such address."""
    for key in ("lethe_operator_wrong", broker.token):
        answer = await operators.ask(broker, key, "POST", path, {"user_id": "usr_x", "reference": "a"})
        assert (answer.status_code, answer.json()["code"]) == (401, "operator_key_required")
    assert (await broker.http.post(path, json={})).status_code == 404


@pytest.mark.parametrize(
    "body",
    [{}, {"user_id": "usr_x"}, {"user_id": "usr_x", "reference": "a b"}, {"user_id": "", "reference": "a"}, {"x": 1}],
)
async def test_a_hold_is_checked(broker: Api, operators: Operators, body: dict[str, Any]) -> None:
    """A user, a reference that is an id, and nothing else."""
    answer = await operators.ask(broker, "alice", "POST", "/holds", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


async def test_what_is_not_there_is_said(broker: Api, operators: Operators) -> None:
    """404 with the code: no such user, no such hold."""
    nobody = await operators.ask(broker, "alice", "POST", "/holds", {"user_id": "usr_nobody", "reference": "a"})
    assert (nobody.status_code, nobody.json()["code"]) == (404, "user_not_found")
    nowhere = "/holds/00000000-0000-4000-8000-000000000000"
    for method, path in (("POST", f"{nowhere}/confirm"), ("DELETE", nowhere)):
        answer = await operators.ask(broker, "alice", method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "hold_not_found")


async def test_a_childs_data_is_removed(broker: Api, operators: Operators, settings: Settings) -> None:
    """xpictures-14, m2r-13: by an operator's key everything goes as if the user had asked, and it is recorded."""
    await broker.finished(b"an output")
    await broker.queued()
    child = {"user_id": await user_of(broker)}
    answer = await operators.ask(broker, "alice", "POST", "/children", child)
    request = answer.json()
    assert (answer.status_code, request["status"], request["ground"]) == (200, "completed", "child")
    assert await count(settings, "users") + await count(settings, "jobs") + await count(settings, "custody") == 0
    recorded = "event = 'request_made' AND detail = 'erasure child by alice'"
    assert await count(settings, "audit_events", recorded) == 1
    again = await operators.ask(broker, "alice", "POST", "/children", child)
    assert (again.status_code, again.json()["code"]) == (404, "user_not_found")


@pytest.mark.parametrize("body", [{}, {"user_id": 1}, {"user_id": "usr_x", "why": "x"}])
async def test_a_childs_removal_is_checked(broker: Api, operators: Operators, body: dict[str, Any]) -> None:
    """A user id and nothing else."""
    answer = await operators.ask(broker, "alice", "POST", "/children", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


async def test_the_commands_do_the_same(broker: Api, operators: Operators, tmp_path: Path) -> None:
    """`lethe hold propose | confirm | end | list`, `lethe remove-child`; a refusal is one sentence."""
    user_id = await user_of(broker)
    assert "There is no hold" in (await said(broker, operators, "alice", "hold", "list")).output
    made = await said(broker, operators, "alice", "hold", "propose", user_id, "--reference", "court/17")
    assert made.exit_code == 0, made.output
    hold_id = made.stdout.split()[1]
    refused = await said(broker, operators, "alice", "hold", "confirm", hold_id)
    assert (refused.exit_code, "second_operator_required" in refused.output) == (1, True)
    assert "In force" in (await said(broker, operators, "bob", "hold", "confirm", hold_id)).output
    assert "court/17" in (await said(broker, operators, "bob", "hold", "list")).output
    assert "legal hold keeps" in (await said(broker, operators, "bob", "remove-child", user_id)).output
    assert "Ended" in (await said(broker, operators, "bob", "hold", "end", hold_id)).output
    await eventually(lambda: _is_gone(operators.settings, user_id))


async def _is_gone(settings: Settings, user_id: str) -> bool:
    return await count(settings, "users", f"id = '{user_id}'") == 0


async def said(api: Api, operators: Operators, name: str, *words: str) -> Result:
    command = [*words, "--operator-url", api.operator_url, "--key-file", "-"]
    return await asyncio.to_thread(CliRunner().invoke, main, command, input=operators.keys[name])


def test_a_broker_that_is_not_there_is_said() -> None:
    """One sentence, with the setting that says where it is."""
    command = ["hold", "list", "--operator-url", "http://127.0.0.1:1", "--key-file", "-"]
    result = CliRunner().invoke(main, command, input="x")
    assert (result.exit_code, "LETHE_OPERATOR_LISTEN" in result.output) == (1, True)

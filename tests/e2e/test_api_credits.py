"""Credits over HTTP: a user sees an account, the app's own server fills it, and nobody else can."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from broker.operators import OperatorKeys, new_key
from broker.settings import Settings, SettingsInvalid
from tests.api_client import Api
from tests.brokers import broker_with
from tests.profiles import settings_under
from tests.stack import upload_bytes


@pytest.fixture
def operator() -> tuple[str, str]:
    """A key, and its line for the file."""
    return new_key("shop")


@pytest.fixture
async def priced(settings: Settings, tmp_path: Path, operator: tuple[str, str]) -> AsyncGenerator[Api]:
    """A broker whose `noop` costs three credits, and that lets one operator in."""
    keys = tmp_path / "operators"
    keys.write_text(operator[1] + "\n")
    settings = msgspec.structs.replace(settings, operator_keys_file=str(keys))
    async with broker_with(settings_under(settings, tmp_path, "[credits]\nprices = { noop = 3 }")) as api:
        yield api


async def granted(api: Api, key: str, **changed: Any) -> httpx.Response:
    user_id = await api.services.stores.users.find(api.token)
    body = {"user_id": user_id, "credits": 5, "reference": "order-1", **changed}
    headers = {"Authorization": f"Bearer {key}"}
    return await api.http.post(f"{api.operator_url}/credits", json=body, headers=headers)


async def test_a_user_buys_and_spends(priced: Api, operator: tuple[str, str]) -> None:
    """402 with the numbers, a grant by the app's server, a job that holds its price, all of it in the account."""
    refused = await priced.put(upload_bytes())
    assert (refused.status_code, refused.json()["code"]) == (402, "credits_required")
    assert (await priced.get("/v1/me/credits")).json() == {"credits": 0, "held": 0, "items": []}

    first, again = await granted(priced, operator[0]), await granted(priced, operator[0])
    assert (first.status_code, first.json()) == (201, {"credits": 5, "held": 0, "is_new": True})
    assert (again.status_code, again.json()) == (200, {"credits": 5, "held": 0, "is_new": False})

    job = (await priced.put(upload_bytes())).json()
    account = (await priced.get("/v1/me/credits")).json()
    assert (account["credits"], account["held"]) == (5, 3)
    assert [(item["kind"], item["credits"], item.get("job")) for item in account["items"]] == [
        ("held", 3, job["id"]),
        ("granted", 5, None),
    ]
    prices = {item["name"]: item["price"] for item in (await priced.get("/v1/operations")).json()["items"]}
    assert prices["noop"] == 3


@pytest.mark.parametrize("header", ["", "Bearer lethe_operator_wrong", "Basic abc"])
async def test_only_an_operator_grants(priced: Api, header: str) -> None:
    """Without a key that the file lists: 401; a user's token is none; the clients' listener has no such address."""
    for shown in (header, f"Bearer {priced.token}"):
        answer = await priced.http.post(
            f"{priced.operator_url}/credits",
            json={"user_id": "usr_x", "credits": 1, "reference": "a"},
            headers={"Authorization": shown} if shown else {},
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "operator_key_required")
    assert (await priced.http.post("/credits", json={})).status_code == 404


@pytest.mark.parametrize(
    "changed",
    [
        {"credits": 0},
        {"credits": -5},
        {"credits": 1_000_001},
        {"reference": ""},
        {"reference": "a b"},
        {"reference": "a\n"},
        {"x": 1},
    ],
)
async def test_a_grant_is_checked(priced: Api, operator: tuple[str, str], changed: dict[str, Any]) -> None:
    """Amounts from 1 to a million, a reference that is an id, and nothing else."""
    answer = await granted(priced, operator[0], **changed)
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_grant_is_small(priced: Api, operator: tuple[str, str]) -> None:
    """No more is read than a grant can need, whoever sends it."""
    answer = await granted(priced, operator[0], reference="a" * 10_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")


async def test_a_grant_for_nobody_is_refused(priced: Api, operator: tuple[str, str]) -> None:
    """404, and no account."""
    answer = await granted(priced, operator[0], user_id="usr_nobody")
    assert (answer.status_code, answer.json()["code"]) == (404, "user_not_found")


@pytest.mark.parametrize("text", ["shop", "shop abc", "a {0}\na {1}", "a {0}\nb {0}"])
def test_a_wrong_file_of_operators_is_refused(tmp_path: Path, text: str) -> None:
    """A line that is no name and hash, a name or a key that comes twice: nothing starts."""
    file = tmp_path / "operators"
    file.write_text(text.format("0" * 64, "1" * 64))
    with pytest.raises(SettingsInvalid, match="LETHE_OPERATOR_KEYS_FILE"):
        OperatorKeys(str(file))
    with pytest.raises(SettingsInvalid, match="cannot be read"):
        OperatorKeys(str(tmp_path / "not-there"))

"""Purchases over HTTP: a phone shows what Apple has signed, and pays with it; all else is refused with a code."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker.settings import Settings
from tests.api_client import Api
from tests.app_store import BUNDLE, PRODUCT, apple
from tests.brokers import broker_with
from tests.profiles import settings_under
from tests.stack import upload_bytes

ROOT, LEAF = apple()
TABLE = f"[credits]\nprices = {{ noop = 3 }}\nproducts = {{ {PRODUCT} = 20 }}"


@pytest.fixture
async def shop(settings: Settings, tmp_path: Path) -> AsyncGenerator[Api]:
    root = tmp_path / "root.cer"
    root.write_bytes(ROOT.certificate.public_bytes(Encoding.DER))
    named = msgspec.structs.replace(settings, app_store_root_file=str(root), app_store_bundle_id=BUNDLE)
    async with broker_with(settings_under(named, tmp_path, TABLE)) as api:
        yield api


async def redeemed(api: Api, **order: Any) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}
    answer = await api.http.post("/v1/me/purchases", content=json.dumps(order), headers=headers)
    return answer.status_code, answer.json()


async def test_a_phone_pays_with_what_it_bought(shop: Api) -> None:
    """xpictures-5: 402, a receipt, credits, a job; the receipt again is worth nothing more."""
    assert (await shop.put(upload_bytes())).status_code == 402
    receipt = LEAF.signed()
    assert await redeemed(shop, shop="app_store", receipt=receipt) == (201, {"credits": 20, "held": 0, "is_new": True})
    assert (await shop.put(upload_bytes())).status_code == 202
    assert await redeemed(shop, shop="app_store", receipt=receipt) == (200, {"credits": 20, "held": 3, "is_new": False})
    assert [entry["kind"] for entry in (await shop.get("/v1/me/credits")).json()["items"]] == ["held", "granted"]


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        ({"shop": "app_store", "receipt": "a.b.c"}, 422, "invalid_purchase"),
        ({"shop": "play", "receipt": "x", "product": "y"}, 501, "purchases_not_set_up"),
        ({"shop": "corner", "receipt": "x"}, 422, "invalid_parameter"),
        ({"shop": {}, "receipt": "x"}, 422, "invalid_parameter"),
        ({"shop": "app_store", "receipt": "\ud800"}, 422, "invalid_parameter"),
        ({"shop": "play", "receipt": "x", "product": "\ud800"}, 422, "invalid_parameter"),
        ({"shop": "app_store"}, 422, "invalid_parameter"),
        ({"shop": "app_store", "receipt": ""}, 422, "invalid_parameter"),
        ({"shop": "app_store", "receipt": 7}, 422, "invalid_parameter"),
        ({"shop": "play", "receipt": "x"}, 422, "invalid_parameter"),
        ({"shop": "app_store", "receipt": "x", "price": 1}, 422, "invalid_parameter"),
    ],
    ids=str,
)
async def test_a_bad_receipt_is_refused(shop: Api, order: dict[str, Any], status: int, code: str) -> None:
    """Each with its code; nothing is granted."""
    answered, problem = await redeemed(shop, **order)
    assert (answered, problem["code"]) == (status, code)
    assert (await shop.get("/v1/me/credits")).json()["items"] == []

"""Shops: whose word counts, word by word; credits once for a purchase, whoever shows it and whatever fails."""

import asyncio
import json
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker.account_errors import InvalidPurchase, PurchasesNotSetUp, PurchaseUsed, ShopUnavailable
from broker.errors import TooManyRequests
from broker.google_account import Account
from broker.limiter import WINDOW_S
from broker.purchases import REDEEM_WITHIN_S, Shop
from broker.services import Services
from broker.settings import Settings, SettingsInvalid
from broker.shops.app_store import ISSUER_MARK, LEAF_MARK, AppStore, load_root
from broker.shops.play import Play
from broker.shops.redeeming import MAX_RECEIPTS, Redeeming, sellers_of
from policies.credits import Credits
from tests.app_store import BUNDLE, PRODUCT, Signer, apple
from tests.emulators import base
from tests.emulators.base import running
from tests.emulators.play import PACKAGE, PlayEmulator
from tests.lifecycle import count, run_sql

WORTH = Credits(products={PRODUCT: 20})
ROOT, LEAF = apple()


@pytest.fixture
async def play() -> AsyncGenerator[PlayEmulator]:
    emulator = PlayEmulator()
    with running(emulator):
        yield emulator


@pytest.fixture
async def redeeming(services: Services, play: PlayEmulator) -> AsyncGenerator[Redeeming]:
    account = msgspec.json.decode(play.account, type=Account)
    sellers = {Shop.APP_STORE: AppStore(ROOT.certificate, BUNDLE), Shop.PLAY: Play(account, PACKAGE, url=play.url)}
    made = Redeeming(sellers, credit_store=services.stores.credits, policy=WORTH, redis=services.redis)
    yield made
    await made.aclose()


async def credits_of(services: Services, user_id: str) -> int:
    return (await services.stores.credits.account(user_id)).credits


async def test_a_signed_transaction_is_worth_its_credits_once(services: Services, redeeming: Redeeming) -> None:
    """Twenty for one, sixty for three; the same again adds nothing, and nobody else gets anything for it."""
    one, other = await services.stores.users.mint(), await services.stores.users.mint()
    receipt = LEAF.signed(quantity=3)
    assert await redeeming.redeem(one.user_id, Shop.APP_STORE, receipt, "")
    assert not await redeeming.redeem(one.user_id, Shop.APP_STORE, receipt, "")
    with pytest.raises(PurchaseUsed):
        await redeeming.redeem(other.user_id, Shop.APP_STORE, receipt, "")
    assert (await credits_of(services, one.user_id), await credits_of(services, other.user_id)) == (60, 0)


async def test_a_user_shows_so_many_receipts(services: Services, redeeming: Redeeming, play: PlayEmulator) -> None:
    """False ones count too; what is over the limit has no shop asked, and another user is not held up."""
    one, other = await services.stores.users.mint(), await services.stores.users.mint()
    for n in range(MAX_RECEIPTS):
        with pytest.raises(InvalidPurchase):
            await redeeming.redeem(one.user_id, Shop.PLAY, f"false-{n}", PRODUCT)
    asked = len(play.seen)
    with pytest.raises(TooManyRequests) as caught:
        await redeeming.redeem(one.user_id, Shop.APP_STORE, LEAF.signed(), "")
    assert caught.value.retry_after_s == WINDOW_S
    with pytest.raises(TooManyRequests):
        await redeeming.redeem(one.user_id, Shop.PLAY, "false", PRODUCT)
    assert len(play.seen) == asked
    assert await redeeming.redeem(other.user_id, Shop.APP_STORE, LEAF.signed(), "")
    keys: list[bytes] = await cast("Any", services.redis).keys("lethe:redeem:*")
    assert len(keys) == 2
    assert not any(one.user_id.encode() in key for key in keys)
    assert all([0 < await services.redis.ttl(key) <= WINDOW_S for key in keys])


async def test_fifty_at_once_redeem_one_purchase_once(services: Services, redeeming: Redeeming) -> None:
    """From fifty connections, by two users."""
    users = [await services.stores.users.mint() for _ in range(2)]
    receipt = LEAF.signed()
    tries = [redeeming.redeem(users[n % 2].user_id, Shop.APP_STORE, receipt, "") for n in range(50)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert answers.count(True) == 1
    assert sum([await credits_of(services, user.user_id) for user in users]) == 20


async def test_no_payment_data_is_kept(services: Services, redeeming: Redeeming, settings: Settings) -> None:
    """A digest and a day; when its user is gone it stays, so that nobody redeems it again, and goes at its time."""
    user = await services.stores.users.mint()
    receipt = LEAF.signed(transactionId="2000000123456789")
    await redeeming.redeem(user.user_id, Shop.APP_STORE, receipt, "")
    for table in ("purchases", "credit_entries", "accounts", "audit_events", "requests"):
        for said in ("2000000123456789", receipt.rpartition(".")[2]):
            assert await count(settings, table, f"{table}::text LIKE '%{said}%'") == 0
    await services.erasure.ask(user.token, user.user_id)
    again = await services.stores.users.mint()
    with pytest.raises(PurchaseUsed):
        await redeeming.redeem(again.user_id, Shop.APP_STORE, receipt, "")
    await run_sql(settings, f"UPDATE purchases SET redeemed_on = redeemed_on - {REDEEM_WITHIN_S // 86_400}")
    await services.sweep.records()
    assert await count(settings, "purchases") == 1
    await run_sql(settings, "UPDATE purchases SET redeemed_on = redeemed_on - 2")
    await services.sweep.records()
    assert await count(settings, "purchases") == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"bundleId": "example.other"},
        {"environment": "Sandbox"},
        {"type": "Auto-Renewable Subscription"},
        {"revocationDate": 1},
        {"quantity": 0},
        {"productId": "unknown"},
        {"purchaseDate": 1_600_000_000_000},
        {"transactionId": None},
        {"purchaseDate": 10**30},
    ],
    ids=str,
)
async def test_what_is_no_purchase_here_is_refused(
    services: Services, redeeming: Redeeming, settings: Settings, changed: dict[str, Any]
) -> None:
    """Another app's, a trial's, no consumable, taken back, nothing, no product of ours, too old, not whole."""
    user = await services.stores.users.mint()
    with pytest.raises(InvalidPurchase):
        await redeeming.redeem(user.user_id, Shop.APP_STORE, LEAF.signed(**changed), "")
    assert await count(settings, "purchases") == 0


def strange_curve(certificate: bytes) -> bytes:
    """Name a curve that nobody knows, of the same length, in a certificate."""
    p256 = bytes.fromhex("06082a8648ce3d030107")
    assert p256 in certificate
    return certificate.replace(p256, bytes.fromhex("06082a8648ce3d03017f"), 1)


def forged() -> dict[str, str]:
    """Receipts that Apple has not signed."""
    head, payload, signature = LEAF.signed().split(".")
    more = urlsafe_b64encode(json.dumps({**json.loads(urlsafe_b64decode(payload + "==")), "quantity": 9}).encode())
    _, stranger = apple()
    unmarked = Signer("Leaf", LEAF.issuer, is_ca=False)
    old = Signer("Leaf", LEAF.issuer, mark=LEAF_MARK, is_ca=False, lasts=timedelta(days=-1))
    plain_issuer = Signer("Issuer", ROOT)
    no_issuer = Signer("Issuer", ROOT, mark=ISSUER_MARK, is_ca=False)
    [first, *others] = LEAF.chain
    version_9 = b64decode(first).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09", 1)
    short = Signer("Leaf", ROOT, is_ca=False)
    return {
        "changed": f"{head}.{more.rstrip(b'=').decode()}.{signature}",
        "another root": stranger.signed(),
        "another's leaf below Apple's issuer": stranger.signed(chain=[stranger.chain[0], *LEAF.chain[1:]]),
        "another's issuer below Apple's root": stranger.signed(chain=[*stranger.chain[:2], LEAF.chain[2]]),
        "no mark": unmarked.signed(),
        "no mark of the issuer": Signer("Leaf", plain_issuer, mark=LEAF_MARK, is_ca=False).signed(),
        "expired": old.signed(),
        "an issuer that may issue nothing": Signer("Leaf", no_issuer, mark=LEAF_MARK, is_ca=False).signed(),
        "a short chain": short.signed(),
        "a certificate of no version": LEAF.signed(chain=[b64encode(version_9).decode(), *others]),
        "a key on another curve": LEAF.signed(chain=[b64encode(strange_curve(b64decode(first))).decode(), *others]),
        "another algorithm": LEAF.signed("HS256"),
        "no signature": f"{head}.{payload}.",
        "two parts": f"{head}.{payload}",
        "noise": "§.§.§",
    }


@pytest.mark.parametrize(("name", "receipt"), forged().items())
async def test_what_apple_has_not_signed_is_refused(name: str, receipt: str) -> None:
    """Whatever is changed, and whoever else signs."""
    with pytest.raises(InvalidPurchase, match="no transaction that Apple has signed"):
        await AppStore(ROOT.certificate, BUNDLE).verify(receipt, "")
    assert name


async def test_play_is_asked_and_told(services: Services, redeeming: Redeeming, play: PlayEmulator) -> None:
    """Credits for what it vouches for; it is consumed then, so that it can be bought again."""
    user, token = await services.stores.users.mint(), play.sell("token-1", quantity=2)
    assert await redeeming.redeem(user.user_id, Shop.PLAY, token, PRODUCT)
    assert (await credits_of(services, user.user_id), play.consumed) == (40, [token])


async def test_a_purchase_that_could_not_be_consumed_is_the_next_time(
    services: Services, redeeming: Redeeming, play: PlayEmulator
) -> None:
    """The credits are there; the receipt shown again grants nothing, and tells Play again."""
    user, token = await services.stores.users.mint(), play.sell("token-2")
    play.next("consume", base.broken(500))
    assert await redeeming.redeem(user.user_id, Shop.PLAY, token, PRODUCT)
    assert play.consumed == []
    assert not await redeeming.redeem(user.user_id, Shop.PLAY, token, PRODUCT)
    assert (await credits_of(services, user.user_id), play.consumed) == (20, [token])


@pytest.mark.parametrize("changed", [{"purchaseState": 1}, {"purchaseState": 2}, {"quantity": 0}], ids=str)
async def test_what_play_does_not_vouch_for_is_refused(
    services: Services, redeeming: Redeeming, play: PlayEmulator, changed: dict[str, Any]
) -> None:
    """Taken back, not paid yet, nothing; a token that it does not know, a product that is another."""
    user, token = await services.stores.users.mint(), play.sell("token-3", **changed)
    for receipt, product in ((token, PRODUCT), ("never", PRODUCT), (token, "other"), ("../../x", PRODUCT)):
        with pytest.raises(InvalidPurchase):
            await redeeming.redeem(user.user_id, Shop.PLAY, receipt, product)
    assert play.consumed == []


@pytest.mark.parametrize("scripted", [base.broken(500), base.LOST, base.MALFORMED, base.broken(401)])
async def test_a_shop_that_does_not_answer_is_no_refusal(
    services: Services, redeeming: Redeeming, play: PlayEmulator, scripted: base.Scripted
) -> None:
    """503: the phone shows it again, and then it counts."""
    user, token = await services.stores.users.mint(), play.sell("token-4")
    play.next("get", scripted)
    with pytest.raises(ShopUnavailable):
        await redeeming.redeem(user.user_id, Shop.PLAY, token, PRODUCT)
    assert await redeeming.redeem(user.user_id, Shop.PLAY, token, PRODUCT)


async def test_a_shop_that_is_not_set_up_is_said(services: Services) -> None:
    """501, by the shop's name."""
    user = await services.stores.users.mint()
    with pytest.raises(PurchasesNotSetUp, match="play"):
        await Redeeming({}, credit_store=services.stores.credits, policy=WORTH, redis=services.redis).redeem(
            user.user_id, Shop.PLAY, "x", "y"
        )


async def test_settings_name_what_is_needed(settings: Settings, play: PlayEmulator, tmp_path: Path) -> None:
    """A root as DER or PEM, an account; a file that is none is named by its setting."""
    root, account = tmp_path / "root", tmp_path / "account.json"
    account.write_bytes(play.account)
    for encoding in (Encoding.DER, Encoding.PEM):
        root.write_bytes(ROOT.certificate.public_bytes(encoding))
        assert load_root(root) == ROOT.certificate
    half = msgspec.structs.replace(settings, app_store_root_file=str(root))
    with pytest.raises(SettingsInvalid, match="LETHE_APP_STORE_BUNDLE_ID is missing"):
        sellers_of(half)
    with pytest.raises(SettingsInvalid, match="LETHE_PLAY_PACKAGE is missing"):
        sellers_of(msgspec.structs.replace(settings, play_account_file=str(account)))
    whole = msgspec.structs.replace(
        half, app_store_bundle_id=BUNDLE, play_account_file=str(account), play_package=PACKAGE
    )
    assert sellers_of(whole).keys() == set(Shop)
    assert sellers_of(settings) == {}
    for name in ("app_store_root_file", "play_account_file"):
        for content in (b"", b"{}", b"-----BEGIN CERTIFICATE-----"):
            file = tmp_path / "broken"
            file.write_bytes(content)
            with pytest.raises(SettingsInvalid, match=f"LETHE_{name.upper()}"):
                sellers_of(msgspec.structs.replace(whole, **{name: str(file)}))

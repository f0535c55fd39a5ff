"""The posture page: signed, true, and a door that stays shut while less is true than the profile demands."""

import asyncio
import gc
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from broker import fleet, watch
from broker.api.health import parts_down
from broker.frames import Memory
from broker.jobs import JobState, Outcome
from broker.posture import TYPE, Posture
from broker.receipts import signed_text
from broker.settings import Settings
from broker.store.processes import Facts, Process
from tests.api_client import Api
from tests.brokers import broker_with
from tests.keyholder_process import KeyholderProcess
from tests.profiles import MINIMAL
from tests.stack import keyholder_of, upload_bytes


@pytest.fixture
def looks_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute, and a second, is over whenever somebody asks."""
    monkeypatch.setattr(watch, "EVERY_S", 0.0)
    monkeypatch.setattr(watch, "UNMET_EVERY_S", 0.0)
    monkeypatch.setattr(fleet, "FRESH_S", -1.0)


async def page(api: Api) -> Posture:
    """Fetch the page, check its signature with the published keys, and read it."""
    answer = await api.http.get("/v1/privacy/posture")
    assert answer.headers["content-type"].startswith("text/plain")
    keys = [item["vkey"] for item in (await api.http.get("/v1/privacy/keys")).json()["items"]]
    return msgspec.json.decode(signed_text(answer.text, keys), type=Posture)


def found(posture: Posture) -> dict[tuple[str, str], str]:
    return {(line.part, line.name): line.verdict for line in posture.facts}


def demanding(folder: Path, *names: str) -> str:
    """The minimal profile with other demands."""
    profile = folder / "demanding.toml"
    before, table, _ = MINIMAL.partition("[posture]")
    profile.write_text(f"{before}{table}\ndemands = {list(names)}\n")
    return str(profile)


async def test_the_page_is_signed_and_complete(api: Api) -> None:
    """Every kind of part tells its facts, each with its words, and a receipt key signs them."""
    posture = await page(api)
    assert (posture.type, posture.profile, posture.is_met) == (TYPE, "minimal", True)
    assert {line.part for line in posture.facts} == {"broker", "worker", "keyholder", "stores"}
    assert all(line.means and line.value for line in posture.facts)
    incarnation = next(line.value for line in posture.facts if line.name == "incarnation")
    assert incarnation == (await keyholder_of(api.services).hello()).hex()
    assert found(posture)["stores", "redis_persistence"] == "reported"


@pytest.mark.usefixtures("looks_always")
async def test_what_is_unmet_shuts_the_door_and_stops_no_job(api: Api) -> None:
    """A process that tells nothing is one of which nothing is true: 503 with its name, until it is gone."""
    before = await api.queued()
    silent = Process(id=uuid4(), role="worker", facts=Facts(pool="gpu", providers=("noop",)))
    await api.services.stores.processes.register(silent, lease_s=3600)

    refused = await api.put(upload_bytes())

    assert (refused.status_code, refused.json()["code"]) == (503, "posture_unmet")
    assert "undumpable (worker: not told, yes)" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) > 0
    posture = await page(api)
    assert not posture.is_met
    assert {line.name for line in posture.unmet} >= {"undumpable", "seccomp"}
    assert (await api.ended(before, Outcome.SUCCEEDED)).state is JobState.SUCCEEDED
    await api.services.stores.processes.leave(silent.id)
    assert (await api.put(upload_bytes())).status_code == 202


@pytest.mark.as_it_is
async def test_a_process_that_is_not_hardened_admits_nothing(settings: Settings) -> None:
    """The process of the tests is no process of Lethe, and its broker says so."""
    async with broker_with(settings) as api:
        refused = await api.put(upload_bytes())
        assert (refused.status_code, refused.json()["code"]) == (503, "posture_unmet")
        verdicts = found(await page(api))
    assert verdicts["broker", "undumpable"] == verdicts["broker", "freed_heap_overwritten"] == "does_not_hold"
    assert verdicts["worker", "undumpable"] == verdicts["keyholder", "undumpable"] == "holds"


@pytest.mark.usefixtures("looks_always")
async def test_a_weaker_keyholder_is_found_out(settings: Settings, tmp_path: Path) -> None:
    """Where keys lie in plain memory, or nobody answers, a profile that demands locked memory admits nothing."""
    keyholder = KeyholderProcess(tmp_path / "k.sock", "--memory", Memory.PLAIN)
    profile = demanding(tmp_path, "keys_locked")
    settings = msgspec.structs.replace(settings, keyholder_socket=keyholder.socket_path, profile=profile)
    try:
        async with broker_with(settings) as api:
            plain = await api.put(upload_bytes())
            keyholder.stop()
            silent = await api.put(upload_bytes())
            keyholder.use("--memory", Memory.MLOCK)
            locked = await api.put(upload_bytes())
    finally:
        keyholder.stop()
    assert plain.json()["code"] == silent.json()["code"] == "posture_unmet"
    assert "keys_locked (keyholder: plain)" in plain.json()["detail"]
    assert "keys_locked (keyholder: not told)" in silent.json()["detail"]
    assert locked.status_code == 202


async def test_a_look_may_be_cancelled_at_any_moment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker stops while it looks at its parts: wherever in the look, nothing is left that was not awaited."""
    await api.services.watch.look()  # the broker's own next look is a minute away
    monkeypatch.setattr(watch, "EVERY_S", 0.0)
    for turns in range(60):
        for look in (api.services.watch.look(), parts_down(api.services)):
            looking = asyncio.create_task(look)
            for _ in range(turns):
                await asyncio.sleep(0)
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
    gc.collect()  # which tells of coroutines that nobody awaited
    assert (await api.services.watch.look()).is_met
    assert await parts_down(api.services) == []


async def test_it_is_looked_at_once_a_minute(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Admissions use what was found; a page asked for in between shows the same look."""
    first = await page(api)
    looked: list[object] = []
    real = keyholder_of(api.services).stats

    async def stats() -> object:
        looked.append(None)
        return await real()

    monkeypatch.setattr(keyholder_of(api.services), "stats", stats)
    for _ in range(3):
        assert (await api.put(upload_bytes())).status_code == 202
    assert await page(api) == first
    assert not looked

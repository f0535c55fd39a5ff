"""Outputs whose bytes are gone, though nobody destroyed them: said as it is, and paid back; sealed or not."""

from collections.abc import AsyncGenerator, AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from broker.devices import Kem
from broker.jobs import Job, Output
from broker.settings import Settings
from broker.store.blobs import BlobStore
from tests.api_client import Api, keep, noise
from tests.brokers import broker_with
from tests.lifecycle import settled
from tests.profiles import GALLERY, settings_under, with_profile
from tests.sealed import new_pair
from workers.outputs import Made
from workers.sealing import seal_output

PRICES = "\n[credits]\nprices = { noop = 3 }\n"
BODY = noise(70_001)


class Priced(NamedTuple):
    """A broker whose jobs cost three credits, of which its user has five."""

    api: Api
    is_sealed: bool

    async def made(self) -> tuple[dict[str, Any], Job, Output]:
        """Bring a job to a good end; return it as the client sees it, its row and its output."""
        shown = await self.api.queued()
        job = await self.api.claimed(shown)
        await settled(self.api.services, job, outputs=[await self._kept(job)])
        seen = (await self.api.get(f"/v1/jobs/{shown['id']}")).json()
        [output] = await self.api.services.stores.custody.outputs(job.id)
        assert await self.told(seen) == (True, 2, "captured")
        return seen, job, output

    async def _kept(self, job: Job) -> Output:
        if not self.is_sealed:
            return await keep(self.api.services, job, BODY, n=0)
        made = Made(data=memoryview(BODY), media_type="image/jpeg", width=2, height=3)
        return await seal_output(self.api.services.stores, job, made, n=0, thumbnail=memoryview(b"small"))

    async def told(self, job: dict[str, Any]) -> tuple[bool, int, str]:
        """Whether a job is charged, what credits its user has, and what became of them last."""
        account = (await self.api.get("/v1/me/credits")).json()
        charged = (await self.api.get(f"/v1/jobs/{job['id']}")).json()["charged"]
        return charged, account["credits"], account["items"][0]["kind"]


@pytest.fixture
async def priced(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> AsyncGenerator[Priced]:
    """Run it, with a device where outputs are sealed."""
    settings = with_profile(settings, tmp_path, GALLERY) if request.param else settings_under(settings, tmp_path)
    profile = Path(settings.profile)
    profile.write_text(profile.read_text() + PRICES)
    async with broker_with(settings) as api:
        user_id = await api.services.stores.users.find(api.token)
        assert user_id is not None
        await api.services.stores.credits.grant(user_id, 5, reference="order-1")
        if request.param:
            answer = await api.http.post("/v1/me/devices", json=new_pair(Kem.X25519).asked, headers=api.auth)
            assert answer.status_code == 201
        yield Priced(api, request.param)


@pytest.mark.parametrize("priced", [False, True], ids=["opened here", "sealed"], indirect=True)
async def test_an_output_without_its_blob_is_lost(priced: Priced) -> None:
    """A power cut, or a rule of the bucket: 410 `output_lost` as often as it is asked for, and paid back once."""
    seen, _, output = await priced.made()
    await priced.api.services.stores.blobs.destroy(output.blob)

    for headers in ({}, {"Range": "bytes=100-200"}):
        answer = await priced.api.get(seen["outputs"][0]["url"], **headers)
        assert (answer.status_code, answer.json()["code"]) == (410, "output_lost")

    assert await priced.told(seen) == (False, 5, "refunded")


@pytest.mark.parametrize(
    ("priced", "at"), [(False, 1), (False, 2), (True, 1)], ids=["its head", "its pieces", "sealed"], indirect=["priced"]
)
async def test_a_delete_that_is_faster_loses_nothing(priced: Priced, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blob goes between the look at its row and the reading of it: 410 `output_gone`, and it stays paid."""
    seen, job, _ = await priced.made()
    real, reads = BlobStore.read, count(1)

    async def read(store: BlobStore, name: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        if next(reads) == at:
            await priced.api.services.settler.destroy_outputs(job.id)
        async for piece in real(store, name, start=start, stop=stop):
            yield piece

    monkeypatch.setattr(BlobStore, "read", read)
    answer = await priced.api.get(seen["outputs"][0]["url"])

    assert (answer.status_code, answer.json()["code"]) == (410, "output_gone")
    assert (await priced.api.get(seen["outputs"][0]["url"])).json()["code"] == "output_gone"
    assert await priced.told(seen) == (True, 2, "captured")


@pytest.mark.parametrize("priced", [True], ids=["sealed"], indirect=True)
async def test_a_thumbnail_alone_is_no_output_that_is_lost(priced: Priced) -> None:
    """Without its blob there is no thumbnail; its output is served and stays paid."""
    seen, _, output = await priced.made()
    await priced.api.services.stores.blobs.destroy(output.thumbnail)

    answer = await priced.api.get(seen["outputs"][0]["thumbnail_url"])

    assert (answer.status_code, answer.json()["code"]) == (404, "output_not_found")
    assert (await priced.api.get(seen["outputs"][0]["url"])).status_code == 200
    assert await priced.told(seen) == (True, 2, "captured")

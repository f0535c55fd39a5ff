"""A client of the HTTP API for tests, and a worker that the test plays with the stores' own verbs."""

import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx

from broker.crypto.chunked import KEY_BYTES, Encryptor
from broker.custody import Holder, NewCopy, What
from broker.jobs import Job, Outcome, Output
from broker.secret_memory import random_into
from broker.services import Services
from broker.store.blobs import new_name
from broker.submission import new_key_id
from tests.lifecycle import settled
from tests.stack import body_of, pretend_worker, upload_bytes


class Api:
    """One user's view of a broker."""

    def __init__(self, http: httpx.AsyncClient, services: Services, *, url: str, operator_url: str, token: str) -> None:
        self.http = http
        self.services = services
        self.url = url
        self.operator_url = operator_url
        self.token = token

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def put(
        self,
        body: bytes | AsyncIterator[bytes],
        job_id: UUID | None = None,
        query: str = "operation=noop",
        **headers: str,
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"/v1/jobs/{job_id or uuid4()}?{query}"
        return await self.http.put(url, content=body, headers={**self.auth, **named})

    async def get(self, path: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.get(path, headers={**self.auth, **named})

    async def delete(self, path: str) -> httpx.Response:
        return await self.http.delete(path, headers=self.auth)

    async def queued(self) -> dict[str, Any]:
        """Send a picture; return the job as the client sees it."""
        answer = await self.put(upload_bytes())
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def row(self, shown: dict[str, Any]) -> Job:
        """The row of a job of any user, by the id that the client sees."""
        database = self.services.stores.database
        found = await database.row("SELECT id FROM jobs WHERE public_id = $1", UUID(shown["id"]))
        assert found is not None
        job = await self.services.stores.jobs.get(found["id"])
        assert job is not None
        return job

    async def claimed(self, shown: dict[str, Any]) -> Job:
        """Claim a job as a worker would."""
        job = await self.services.stores.jobs.claim((await self.row(shown)).id, await pretend_worker(self.services))
        assert job is not None
        await self.services.settler.announce(job)
        return job

    async def ended(
        self, shown: dict[str, Any], outcome: Outcome, *, code: str = "", outputs: tuple[bytes, ...] = ()
    ) -> Job:
        """Run a job to its end as a worker would."""
        job = await self.claimed(shown)
        made = [await keep(self.services, job, data, n=n) for n, data in enumerate(outputs)]
        return await settled(self.services, job, outcome, code=code, outputs=made)

    async def finished(self, output: bytes) -> dict[str, Any]:
        """Send a picture and bring it to a good end; return the job as the client sees it."""
        return await self.finished_with(output)

    async def finished_with(self, *outputs: bytes) -> dict[str, Any]:
        """The same with as many outputs as are given."""
        shown = await self.queued()
        await self.ended(shown, Outcome.SUCCEEDED, outputs=outputs)
        return (await self.get(f"/v1/jobs/{shown['id']}")).json()


async def keep(services: Services, job: Job, data: bytes, *, n: int) -> Output:
    """Keep one output as a worker would."""
    blob, key_id, key = new_name(), new_key_id(), bytearray(KEY_BYTES)
    random_into(key)
    stores = services.stores
    kept_at = await stores.keys.pick()
    copies = [
        NewCopy(holder=Holder.BLOB, what=What.OUTPUT, ref=blob),
        NewCopy(holder=Holder.KEY, what=What.OUTPUT, ref=key_id.hex(), detail=kept_at.detail),
    ]
    await stores.custody.open(job, copies)
    encryptor = Encryptor(key, context=blob.encode())
    await stores.blobs.put(blob, body_of(encryptor.update(data), encryptor.finish()))
    await stores.keys.at(kept_at.keyholder).put(key_id, key, ttl_s=60)
    return Output(
        n=n,
        blob=blob,
        key_id=key_id,
        keyholder=kept_at.keyholder,
        incarnation=kept_at.incarnation,
        media_type="image/png",
        size_bytes=len(data),
        width=2,
        height=3,
        destroyed_at=None,
    )


def noise(size: int) -> bytes:
    return os.urandom(size)

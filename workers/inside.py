"""One attempt at an in-house model: open, decode, ask the policies, run, keep."""

import time
from uuid import uuid4

from broker.jobs import Job, Outcome
from broker.services import Services
from policies.base import Facts, Refuse
from providers.base import Handle, Picture, Pixels, Provider, Snapshot, Takes, Task
from providers.estimates import estimate
from providers.failures import FailureKind, ProviderFailure
from workers.adapters import Adapters
from workers.images.errors import EncodingFailed
from workers.images.zygote import Zygote
from workers.opening import open_pictures
from workers.outcomes import Ending, Stopped, failed
from workers.plaintext import Plaintext
from workers.progress import Progress
from workers.results import Results
from workers.work import Work


class Inside:
    """Runs jobs at models in this process; nothing of a picture leaves it but as a clean, encrypted output."""

    def __init__(self, services: Services, adapters: Adapters, zygote: Zygote, results: Results) -> None:
        self._services = services
        self._stores = services.stores
        self._adapters = adapters
        self._zygote = zygote
        self._results = results

    async def run(self, work: Work, name: str) -> Ending:
        """Return a success; raise ProviderFailure, which is remembered, or Stopped."""
        model = self._adapters.model(name)
        assert model is not None
        try:
            with Plaintext() as plaintext:
                snapshot = await self._run(work, name, model, plaintext)
            outputs = await self._results.keep_made(work.job, snapshot.outputs)
        except EncodingFailed as exc:
            raise await self._remembered(work.job, name, ProviderFailure(FailureKind.BAD_OUTPUT, exc.code)) from None
        except ProviderFailure as exc:
            raise await self._remembered(work.job, name, exc) from None
        return Ending(outcome=Outcome.SUCCEEDED, outputs=outputs)

    async def _run(self, work: Work, name: str, model: Provider, plaintext: Plaintext) -> Snapshot:
        pictures: list[Picture] = []
        for upload in await open_pictures(self._stores, work.job, work.uploads, plaintext):
            pictures.append(upload)
            if model.terms.takes is Takes.PIXELS:
                pixels = await self._zygote.decode(upload)
                plaintext.keep(pixels.fd)
                plaintext.destroy(upload.fd)
                pictures[-1] = pixels
        self._ask_policies(work.job, name, pictures)
        task = Task(
            attempt=str(uuid4()),
            operation=work.job.operation,
            parameters=work.parameters,
            pictures=tuple(pictures),
            deadline_s=work.job.finish_within_s,
        )
        return await self._submit(work.job, model, task)

    async def _submit(self, job: Job, model: Provider, task: Task) -> Snapshot:
        began_s = time.monotonic()
        snapshot = await model.submit(task, _Listener(Progress(self._stores.jobs, self._services.changes, job)))
        model_s = snapshot.model_s or time.monotonic() - began_s
        self._services.metrics.model_seconds.labels(operation=job.operation).observe(model_s)
        return snapshot

    def _ask_policies(self, job: Job, name: str, pictures: list[Picture]) -> None:
        facts = Facts(operation=job.operation, is_clean=all(isinstance(picture, Pixels) for picture in pictures))
        terms = self._services.config.current.providers[name].terms
        refusal = self._services.policies.disclose(facts, terms)
        for picture in pictures:
            if refusal is None and isinstance(picture, Pixels):
                refusal = self._too_much(job, picture)
        if refusal is not None:
            raise Stopped(failed(refusal.code))

    def _too_much(self, job: Job, picture: Pixels) -> Refuse | None:
        # The door asks the same where the header tells the size; here the size is known.
        expected = estimate(
            self._services.lease.process.facts.speeds, job.parameters, width=picture.width, height=picture.height
        )
        answer = self._services.policies.admit(
            Facts(
                operation=job.operation,
                width=picture.width,
                height=picture.height,
                output_pixels=expected.output_pixels,
                expected_s=expected.model_s,
                finish_within_s=job.finish_within_s,
            )
        )
        return answer if isinstance(answer, Refuse) else None

    async def _remembered(self, job: Job, name: str, failure: ProviderFailure) -> ProviderFailure:
        await self._stores.attempts.failed_here(job, uuid4(), provider=name, failure=failure)
        return failure


class _Listener:
    """Hears how far a model is; it has no handle."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    async def accepted(self, handle: Handle) -> None:
        """Nothing exists outside this process."""

    async def progressed(self, share: float) -> None:
        """Write it down."""
        await self._progress.report(share)

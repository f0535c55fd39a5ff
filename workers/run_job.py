"""The story of one job, top to bottom: open, clean, disclose, run, keep, wipe, decide, settle."""

import asyncio
import os
import time
from collections.abc import Mapping

import structlog

from broker.crypto.chunked import KEY_BYTES, CiphertextInvalid, Decryptor
from broker.custody import Copy, Held, Holder, What
from broker.errors import IllegalTransition, Unavailable
from broker.jobs import Job, Outcome
from broker.metrics import AttemptResult
from broker.secret_memory import wipe
from broker.services import Services
from broker.sniff import ImageKind
from broker.store.keys import OpenAnswer
from policies.base import Facts, Refuse
from providers.base import Exposure, Pixels, Provider, ProviderFailure, Result, Takes, Task, Upload
from providers.estimates import estimate
from workers.images.errors import EncodingFailed, InvalidImage
from workers.images.zygote import Zygote
from workers.outcomes import Ending, failed, provider_failed
from workers.outputs import Made, keep_output
from workers.plaintext import Plaintext, mapped
from workers.progress import Progress

log = structlog.get_logger()

DECIDE_AGAIN_S = 0.5
RGBA = 4


class JobRun:
    """Runs claimed jobs at in-house providers; holds a job's plaintext only inside `attempt`."""

    def __init__(self, services: Services, zygote: Zygote, providers: Mapping[str, Provider]) -> None:
        self._services = services
        self._stores = services.stores
        self._zygote = zygote
        self._providers = providers

    async def attempt(self, job: Job) -> Ending:
        """
        Run a job that this process has claimed, as far as an outcome; nothing of it is held once this ends.

        Raises IllegalTransition when the job is no longer ours, Unavailable when a store is away.
        """
        try:
            async with asyncio.timeout(job.finish_within_s):
                with Plaintext() as plaintext:
                    return await self._attempt(job, plaintext)
        except TimeoutError:
            return Ending(outcome=Outcome.EXPIRED, code="not_finished_in_time")
        except (IllegalTransition, Unavailable):
            raise
        except Exception as exc:  # noqa: BLE001 - whatever breaks, the job has to end and its upload with it
            return _ending(job, exc)

    async def conclude(self, job: Job, ending: Ending) -> None:
        """Write the outcome down, once, and settle; IllegalTransition when somebody else has decided meanwhile."""
        assert job.owner is not None
        held = Held(process=job.owner, fence=job.fence)
        settling = await self._decide(job, ending)
        result = AttemptResult(ending.outcome.value)
        self._services.metrics.attempts.labels(operation=job.operation, result=result).inc()
        await self._services.settler.settle_or_postpone(settling, let_go=held)

    async def _attempt(self, job: Job, plaintext: Plaintext) -> Ending:
        provider = self._provider(job)
        if isinstance(provider, Ending):
            return provider
        upload = await self._open(job, plaintext)
        if isinstance(upload, Ending):
            return upload
        picture: Pixels | Upload = upload
        if provider.takes is Takes.PIXELS:
            picture = await self._zygote.decode(upload)
            plaintext.keep(picture.fd)
            plaintext.destroy(upload.fd)
        refusal = self._refusal(job, provider, picture)
        if refusal is not None:
            return failed(refusal.code)
        result = await self._run(job, provider, picture)
        plaintext.destroy(picture.fd)
        return await self._keep(job, result, plaintext)

    def _provider(self, job: Job) -> Provider | Ending:
        terms = self._services.config.provider_of(job.operation)
        provider = self._providers.get(terms.model) if terms is not None else None
        return failed("operation_unavailable") if provider is None else provider

    async def _open(self, job: Job, plaintext: Plaintext) -> Upload | Ending:
        copies = [c for c in await self._stores.custody.copies(job.id) if c.what is What.UPLOAD]
        blob, key_row = _newest(copies, Holder.BLOB), _newest(copies, Holder.KEY)
        key = bytearray(KEY_BYTES)
        try:
            answer = await self._stores.keys.open_into(bytes.fromhex(key_row.ref), key, fence=job.fence)
            if answer is OpenAnswer.STALE:
                raise IllegalTransition(f"open {job.id} at fence {job.fence}")
            if answer is OpenAnswer.GONE:
                return failed("key_lost")
            decryptor = Decryptor(key, context=blob.ref.encode())
        finally:
            wipe(key)
        return await self._decrypt(decryptor, blob.ref, plaintext.blank(job.upload_bytes))

    async def _decrypt(self, decryptor: Decryptor, blob: str, descriptor: int) -> Upload | Ending:
        at = 0
        try:
            with mapped(descriptor, writable=True) as out:
                async for chunk in self._stores.blobs.read(blob):
                    at += decryptor.update(chunk, out[at:])
                at += decryptor.finish(out[at:])
        except FileNotFoundError:
            return failed("upload_lost")
        finally:
            decryptor.wipe()
        return Upload(fd=descriptor, size_bytes=at)

    def _refusal(self, job: Job, provider: Provider, picture: Pixels | Upload) -> Refuse | None:
        facts = Facts(operation=job.operation, is_clean=isinstance(picture, Pixels))
        terms = self._services.config.provider_of(job.operation)
        if terms is not None:
            refusal = self._services.policies.disclose(facts, terms.terms)
            if refusal is not None:
                return refusal
        if provider.exposure is not Exposure.LOCAL or not isinstance(picture, Pixels):
            return None
        return self._too_much(job, picture)

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

    async def _run(self, job: Job, provider: Provider, picture: Pixels | Upload) -> Result:
        task = Task(
            attempt=os.urandom(16).hex(),
            operation=job.operation,
            parameters=job.parameters,
            picture=picture,
            deadline_s=job.finish_within_s,
        )
        started_s = time.monotonic()
        result = await provider.run(task, Progress(self._stores.jobs, self._services.changes, job).report)
        model_s = result.model_s or time.monotonic() - started_s
        self._services.metrics.model_seconds.labels(operation=job.operation).observe(model_s)
        return result

    async def _keep(self, job: Job, result: Result, plaintext: Plaintext) -> Ending:
        lifetime_s = self._services.policies.retain(Facts(operation=job.operation)).lifetime_s
        if result.pixels is None:
            document = Made(data=memoryview(result.document or b""), media_type=result.media_type, width=0, height=0)
            output = await keep_output(self._stores, job, document, n=0, lifetime_s=lifetime_s)
            return Ending(outcome=Outcome.SUCCEEDED, outputs=[output])
        pixels = result.pixels
        plaintext.keep(pixels.fd)
        kind = _output_kind(job.media_type, pixels)
        encoded = await self._zygote.encode(pixels, kind=kind, quality=self._quality(kind))
        plaintext.keep(encoded.fd)
        plaintext.destroy(pixels.fd)
        with mapped(encoded.fd) as data:
            made = Made(data=data, media_type=kind.media_type, width=pixels.width, height=pixels.height)
            output = await keep_output(self._stores, job, made, n=0, lifetime_s=lifetime_s)
        return Ending(outcome=Outcome.SUCCEEDED, outputs=[output])

    def _quality(self, kind: ImageKind) -> int:
        metadata = self._services.policies.profile.metadata
        return metadata.webp_quality if kind is ImageKind.WEBP else metadata.jpeg_quality  # PNG loses nothing

    async def _decide(self, job: Job, ending: Ending) -> Job:
        while True:
            try:
                return await self._stores.jobs.begin_settling(
                    job,
                    ending.outcome,
                    owner=self._services.lease.process.id,
                    code=ending.code,
                    outputs=ending.outputs,
                )
            except Unavailable:
                # Nothing is held any more; when the lease ends meanwhile, the job is rescued and this raises.
                log.warning("decision_postponed", job_id=str(job.id))
                await asyncio.sleep(DECIDE_AGAIN_S)


def _ending(job: Job, exc: Exception) -> Ending:
    match exc:
        case InvalidImage():
            return failed("invalid_image")
        case EncodingFailed():
            return failed("bad_output")
        case CiphertextInvalid():
            return failed("upload_damaged")
        case ProviderFailure():
            return provider_failed(exc.kind)
        case _:
            log.error("attempt_broke", job_id=str(job.id), exc_info=exc)
            return failed("internal")


def _newest(copies: list[Copy], holder: Holder) -> Copy:
    return max((copy for copy in copies if copy.holder is holder), key=lambda copy: copy.id)


def _output_kind(media_type: str, pixels: Pixels) -> ImageKind:
    kind = ImageKind(media_type.removeprefix("image/"))
    if kind in {ImageKind.PNG, ImageKind.WEBP}:
        return kind
    return ImageKind.PNG if pixels.channels == RGBA else ImageKind.JPEG

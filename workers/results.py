"""Cleans what a provider made, and keeps it: pictures are rebuilt from pixels, videos lose their metadata."""

from collections.abc import Sequence

from broker.jobs import Job, Output
from broker.operations import OPERATIONS, OutputKind
from broker.services import Services
from broker.sniff import ImageKind
from policies.base import Facts
from providers import base
from providers.base import Pixels, Upload
from providers.download import Fetched
from providers.failures import FailureKind, ProviderFailure
from providers.kinds import VIDEOS
from workers.images.errors import EncodingFailed, ImageFault, InvalidImage
from workers.images.orders import ImageLimits
from workers.images.zygote import Zygote
from workers.outputs import Made, keep_output
from workers.plaintext import Plaintext, let_go, mapped
from workers.sealing import THUMBNAIL_QUALITY, THUMBNAIL_SIDE, seal_output

PASSING = frozenset({ImageFault.DECODER_KILLED, ImageFault.TIMEOUT})
"""May be no fault of the picture: it is paid for, and cleaned once more before another is ordered."""
RGBA = 4


class Results:
    """Keeps the outputs of attempts; nothing is kept of what is not clean, which raises BAD_OUTPUT, or TIMEOUT."""

    def __init__(self, services: Services, zygote: Zygote) -> None:
        self._services = services
        self._stores = services.stores
        self._zygote = zygote

    async def keep_made(self, job: Job, outputs: Sequence[base.Output]) -> list[Output]:
        """Keep what an in-house model made."""
        kept: list[Output] = []
        for n, output in enumerate(outputs):
            if output.pixels is None:
                made = Made(data=memoryview(output.data or b""), media_type=output.media_type, width=0, height=0)
                kept.append(await self._keep(job, made, n=n))
            else:
                with Plaintext() as plaintext:
                    kept.append(await self._keep_pixels(job, output.pixels, plaintext, n=n))
        return kept

    async def keep_fetched(self, job: Job, fetched: Sequence[Fetched]) -> list[Output]:
        """Keep what came from outside; closes every descriptor, whatever happens."""
        with Plaintext() as plaintext:
            for file in fetched:
                plaintext.keep(file.fd)
            try:
                return [await self._keep_file(job, file, plaintext, n=n) for n, file in enumerate(fetched)]
            except (InvalidImage, EncodingFailed) as exc:
                kind = FailureKind.TIMEOUT if exc.code in PASSING else FailureKind.BAD_OUTPUT
                raise ProviderFailure(kind, "not_clean") from None

    async def _keep_file(self, job: Job, file: Fetched, plaintext: Plaintext, *, n: int) -> Output:
        wanted = OPERATIONS[job.operation].outputs.kind
        if (file.media_type in VIDEOS) != (wanted is OutputKind.VIDEO):
            raise ProviderFailure(FailureKind.BAD_OUTPUT, "output_kind")
        upload = Upload(fd=file.fd, size_bytes=file.size_bytes)
        if wanted is OutputKind.VIDEO:
            return await self._keep_video(job, upload, plaintext, media_type=file.media_type, n=n)
        limits = ImageLimits(max_pixels=self._services.policies.profile.limits.max_output_pixels)
        pixels = await self._zygote.decode(upload, limits=limits)
        plaintext.destroy(file.fd)
        return await self._keep_pixels(job, pixels, plaintext, n=n)

    async def _keep_video(self, job: Job, upload: Upload, plaintext: Plaintext, *, media_type: str, n: int) -> Output:
        clean = await self._zygote.clean_video(upload)
        plaintext.keep(clean.fd)
        with mapped(clean.fd) as data:
            made = Made(data=data, media_type=media_type, width=clean.width, height=clean.height)
            return await self._keep(job, made, n=n)

    async def _keep_pixels(self, job: Job, pixels: Pixels, plaintext: Plaintext, *, n: int) -> Output:
        plaintext.keep(pixels.fd)
        kind = output_kind(job.media_type, pixels)
        encoded = await self._zygote.encode(pixels, kind=kind, quality=self._quality(kind))
        plaintext.keep(encoded.fd)
        thumbnail_fd = await self._thumbnail(pixels, plaintext) if job.is_sealed else None
        plaintext.destroy(pixels.fd)
        with mapped(encoded.fd) as data:
            made = Made(data=data, media_type=kind.media_type, width=pixels.width, height=pixels.height)
            output = await self._keep(job, made, n=n, thumbnail_fd=thumbnail_fd)
        plaintext.destroy(encoded.fd)
        if thumbnail_fd is not None:
            plaintext.destroy(thumbnail_fd)
        return output

    async def _thumbnail(self, pixels: Pixels, plaintext: Plaintext) -> int:
        small = await self._zygote.encode(
            pixels, kind=ImageKind.JPEG, quality=THUMBNAIL_QUALITY, longest_side=THUMBNAIL_SIDE
        )
        return plaintext.keep(small.fd)

    async def _keep(self, job: Job, made: Made, *, n: int, thumbnail_fd: int | None = None) -> Output:
        if job.is_sealed:
            return await self._seal(job, made, n=n, thumbnail_fd=thumbnail_fd)
        lifetime_s = self._services.policies.retain(Facts(operation=job.operation, is_sealed=False)).lifetime_s
        assert lifetime_s is not None  # what we can open has an end
        return await keep_output(self._stores, job, made, n=n, lifetime_s=lifetime_s)

    async def _seal(self, job: Job, made: Made, *, n: int, thumbnail_fd: int | None) -> Output:
        if thumbnail_fd is None:
            return await seal_output(self._stores, job, made, n=n, thumbnail=None)
        with mapped(thumbnail_fd) as small:
            return await seal_output(self._stores, job, made, n=n, thumbnail=small)

    def _quality(self, kind: ImageKind) -> int:
        metadata = self._services.policies.profile.metadata
        return metadata.webp_quality if kind is ImageKind.WEBP else metadata.jpeg_quality  # PNG loses nothing


def output_kind(media_type: str, pixels: Pixels) -> ImageKind:
    """Choose the format of an output: that of the upload where it can show what is there, else PNG or JPEG."""
    kind = ImageKind(media_type.removeprefix("image/")) if media_type else ImageKind.JPEG
    if kind in {ImageKind.PNG, ImageKind.WEBP}:
        return kind
    return ImageKind.PNG if pixels.channels == RGBA else ImageKind.JPEG


def destroy_all(fetched: Sequence[Fetched]) -> None:
    """Overwrite and close what is not kept after all."""
    for file in fetched:
        let_go(file.fd)

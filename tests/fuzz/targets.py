"""
What reads bytes that nobody here has written: each takes any bytes, and ends in an answer or in an error of its own.

Whatever else comes out of one of them is a finding.
"""

import asyncio
import contextlib
import json
import mmap
import warnings
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
from PIL import Image

from broker.api.ranges import RangeNotSatisfiable, asked_range
from broker.crypto.chunked import KEY_BYTES, CiphertextInvalid, Decryptor, Encryptor
from broker.errors import BrokerError
from broker.form import Form, boundary_of
from broker.operations import OPERATIONS, parse_parameters, parse_request
from broker.parameters import decode_header, decode_json
from broker.receipts import ReceiptInvalid, verify
from broker.sniff import HEAD_BYTES, ImageKind, dimensions, sniff
from providers.failures import ProviderFailure
from providers.kinds import media_type_of
from providers.templates import outputs_of, pointed
from tests.forms import BOUNDARY, CONTENT_TYPE, form_of, job_part, picture_part
from tests.fuzz import frames, replies
from tests.images_corpus import marked
from tests.videos_corpus import REAL, marked_mp4, marked_webm
from workers.images.decode import decode
from workers.images.errors import EncodingFailed, InvalidImage
from workers.images.formats import UncleanOutput, check
from workers.images.orders import ImageLimits
from workers.images.polyglots import is_polyglot
from workers.images.videos import clean

LIMITS = ImageLimits(max_pixels=4_096)
CONTEXT = b"fuzz"
KEY = bytes(range(KEY_BYTES))
CHUNKS_BYTES = (1, 7, 4_096)
VKEY = "lethe.test/receipts+0a2b4c6d+ATtqJ8zodUJcrS6mfUEkZT3uZyO3yc6r6mA8kVKAVZ0N"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One reader, and whole examples of what it reads."""

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]


def read_picture_head(data: bytes) -> None:
    """The door: kind and size of an upload, kind of an output."""
    sniff(data[:64])
    dimensions(data[:HEAD_BYTES])
    media_type_of(data[:HEAD_BYTES])


def check_output(data: bytes) -> None:
    """The last look at what was encoded, and whether an upload is something else besides."""
    for kind in ImageKind:
        is_polyglot(data, kind)
        with contextlib.suppress(UncleanOutput):
            check(data, kind)


def decode_picture(data: bytes) -> None:
    """What a child of the zygote does, here without its fence; not for HEIC, whose reader is known to crash there."""
    if sniff(data[:64]) is ImageKind.HEIC:
        return
    limit = Image.MAX_IMAGE_PIXELS
    try:
        with mmap.mmap(-1, len(data) or 1) as source, mmap.mmap(-1, LIMITS.max_pixels * 4) as rows:
            source[: len(data)] = data
            with contextlib.suppress(InvalidImage), warnings.catch_warnings():
                width, height, channels = decode(source, rows, LIMITS)
                assert 0 < width * height <= LIMITS.max_pixels
                assert channels in {3, 4}
    finally:
        Image.MAX_IMAGE_PIXELS = limit  # for whoever else is in this process


def clean_video(data: bytes) -> None:
    """The container of a video; what is cleaned is clean."""
    with mmap.mmap(-1, len(data) or 1) as source, mmap.mmap(-1, len(data) or 1) as made:
        source[: len(data)] = data
        with contextlib.suppress(EncodingFailed):
            clean(source, made)


def read_form(data: bytes) -> None:
    """A form in pieces of several sizes, and its boundary."""
    with contextlib.suppress(BrokerError):
        boundary_of(data.decode("latin-1"))
    for size in CHUNKS_BYTES:
        asyncio.run(_read_form(data, size))


async def _read_form(data: bytes, size: int) -> None:
    form = Form(_pieces(data, size), BOUNDARY)
    with contextlib.suppress(BrokerError):
        await form.job()
        async for picture in form.pictures():
            async for _ in picture:
                pass
    await form.aclose()


async def _pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def read_parameters(data: bytes) -> None:
    """Parameters as JSON, in a header, and in a query, for every operation; and a range."""
    text = data.decode("latin-1")
    with contextlib.suppress(RangeNotSatisfiable):
        span = asked_range(text, 1_000)
        assert span is None or 0 <= span.start < span.stop <= 1_000
    with contextlib.suppress(BrokerError):
        decode_header(text)
    for name in OPERATIONS:
        with contextlib.suppress(BrokerError):
            parse_request(name, [("operation", name), *(pair.partition("=")[::2] for pair in text.split("&"))], text)  # pyright: ignore[reportArgumentType]
        with contextlib.suppress(BrokerError):
            msgspec.json.encode(parse_parameters(name, decode_json(data)))


def decrypt(data: bytes) -> None:
    """A blob that somebody has changed."""
    for size in CHUNKS_BYTES[1:]:
        decryptor, out = Decryptor(bytearray(KEY), context=CONTEXT), memoryview(bytearray(len(data) + 65_536))
        with contextlib.suppress(CiphertextInvalid):
            for at in range(0, len(data), size):
                decryptor.update(data[at : at + size], out)
            decryptor.finish(out)


def _sealed(plaintext: bytes) -> bytes:
    encryptor = Encryptor(bytearray(KEY), context=CONTEXT)
    return bytes(encryptor.update(plaintext)) + bytes(encryptor.finish())


def verify_receipt(data: bytes) -> None:
    """A receipt from anywhere, and a key from anywhere."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ReceiptInvalid):
        verify(text, [VKEY])
    with contextlib.suppress(ReceiptInvalid, ValueError):
        verify(text, [text.partition("\n")[0]])


def find_outputs(data: bytes) -> None:
    """A document of a provider, and what a pointer finds in it."""
    pointer, _, document = data.partition(b"\n")
    with contextlib.suppress(ValueError, RecursionError, ProviderFailure):
        outputs_of(pointed(json.loads(document), pointer.decode("latin-1")))


PNG, JPEG, WEBP, HEIC = (marked(kind) for kind in (ImageKind.PNG, ImageKind.JPEG, ImageKind.WEBP, ImageKind.HEIC))

TARGETS: dict[str, Target] = {
    "picture_head": Target(run=read_picture_head, seeds=(PNG, JPEG, WEBP, HEIC)),
    "output_format": Target(run=check_output, seeds=(PNG, JPEG, WEBP, HEIC)),
    "picture": Target(run=decode_picture, seeds=(PNG, JPEG, WEBP)),
    "video": Target(run=clean_video, seeds=(marked_mp4(), marked_webm(), *REAL.values())),
    "form": Target(
        run=read_form, seeds=(form_of(job_part(), picture_part(JPEG), picture_part(b"")), CONTENT_TYPE.encode())
    ),
    "parameters": Target(
        run=read_parameters,
        seeds=(b'{"prompt": "a kite", "count": 2}', b"scale=2&quality=best", b"eyJwcm9tcHQiOiAiYSJ9", b"bytes=0-99"),
    ),
    "keyholder": Target(run=frames.ask, seeds=frames.QUESTIONS),
    "keyholder_answers": Target(run=frames.hear, seeds=frames.ANSWERS),
    "ciphertext": Target(run=decrypt, seeds=(_sealed(b""), _sealed(b"a picture"), _sealed(bytes(40_000)))),
    "receipt": Target(
        run=verify_receipt, seeds=(b'{"type":"lethe/receipt/v1"}\n\n\xe2\x80\x94 lethe.test/receipts AAAA\n',)
    ),
    "outputs": Target(
        run=find_outputs,
        seeds=(b'/a/0\n{"a": ["https://x.example/1.png"]}', b'\n["data:image/png;base64,AAAA"]', b'/o\n{"o": "AAAA"}'),
    ),
    "replies": Target(run=replies.hear, seeds=replies.SEEDS),
}

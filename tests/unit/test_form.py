"""A form as a stream: however it is cut into chunks, the same parts or the same refusal; nothing strange passes."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BrokerError, UploadIncomplete, UploadTooLarge
from broker.form import MAX_JOB_BYTES, MAX_PARTS, Form, boundary_of
from broker.form_errors import InvalidForm, UnexpectedPart

JOB = b'Content-Disposition: form-data; name="job"\r\nContent-Type: application/json\r\n\r\n{"operation":"edit"}'
PICTURE = b'Content-Disposition: form-data; name="picture"; filename="ich.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
Parts = tuple[bytes, list[bytes]]


def body_of(*parts: bytes, boundary: bytes = b"b", end: bytes = b"--\r\n") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + end


async def arriving(body: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    places = [0, *sorted({cut % (len(body) + 1) for cut in cuts}), len(body)]
    for start, stop in pairwise(places):
        if start < stop:
            yield body[start:stop]


async def parts_of(body: bytes, cuts: list[int], boundary: str = "b") -> Parts:
    form = Form(arriving(body, cuts), boundary)
    job = await form.job()
    return bytes(job), [b"".join([piece async for piece in picture]) async for picture in form.pictures()]


def read(body: bytes, cuts: list[int], boundary: str = "b") -> Parts | str:
    """The parts, or the code of the refusal."""
    try:
        return asyncio.run(parts_of(body, cuts, boundary))
    except BrokerError as exc:
        return exc.code


anywhere = st.lists(st.integers(min_value=0), max_size=12)
near_boundaries = st.lists(st.sampled_from([b"\r\n", b"--b", b"\r", b"\n", b"--", b"b", b"x", b"\r\n--"]), max_size=6)


@given(pictures=st.lists(st.binary(max_size=200) | near_boundaries.map(b"".join), max_size=4), cuts=anywhere)
def test_any_chunking_gives_the_same_parts(pictures: list[bytes], cuts: list[int]) -> None:
    """What was put in comes out, byte for byte; where a picture holds the boundary itself, the same refusal."""
    body = body_of(JOB, *(PICTURE + picture for picture in pictures))
    whole = read(body, [])
    assert read(body, cuts) == read(body, list(range(len(body)))) == whole
    if not any(b"\r\n--b" in b"\r\n" + picture for picture in pictures):
        assert whole == (b'{"operation":"edit"}', pictures)


@given(
    body=st.lists(st.sampled_from([JOB, PICTURE, b"\r\n--b\r\n", b"--b", b"--", b"\r\n", b"\n", b"x: y", b":"])),
    cuts=anywhere,
)
def test_any_chunking_gives_the_same_refusal(body: list[bytes], cuts: list[int]) -> None:
    """Garbage is refused for one reason, wherever the network cut it."""
    whole = b"--b\r\n" + b"".join(body)
    assert read(whole, cuts) == read(whole, list(range(len(whole)))) == read(whole, [])


@given(body=st.binary(max_size=300), cuts=anywhere)
def test_noise_is_refused_with_an_error_of_ours(body: bytes, cuts: list[int]) -> None:
    """Whatever comes, nothing but our own refusals is raised."""
    assert isinstance(read(body, cuts), str)


def picture_with(*headers: bytes) -> bytes:
    return b"\r\n".join([b'Content-Disposition: form-data; name="picture"', *headers, b"", b"data"])


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (body_of(), UnexpectedPart),
        (body_of(PICTURE + b"data", JOB), UnexpectedPart),
        (body_of(JOB, JOB), UnexpectedPart),
        (body_of(JOB, picture_with().replace(b"picture", b"photo")), UnexpectedPart),
        (body_of(JOB.replace(b"application/json", b"text/plain")), UnexpectedPart),
        (body_of(b'Content-Disposition: form-data; name="job"\r\n\r\n{}'), UnexpectedPart),
        (body_of(JOB, picture_with(b"Content-Type: multipart/mixed; boundary=c")), UnexpectedPart),
        (body_of(JOB, picture_with(b"Content-Transfer-Encoding: base64")), UnexpectedPart),
        (body_of(JOB, picture_with(b"Content-Type: a", b"content-type: b")), InvalidForm),
        (body_of(JOB, picture_with(b"X: a\nb")), InvalidForm),
        (body_of(JOB, picture_with(b"\nX: a")), InvalidForm),
        (body_of(JOB, picture_with(b"X: a", b" b")), InvalidForm),
        (body_of(JOB, picture_with(b"X: \xff")), InvalidForm),
        (body_of(JOB, picture_with(b"X: " + b"a" * 2_050)), InvalidForm),
        (body_of(JOB, picture_with(b"X: " + b"a" * 9_000)), InvalidForm),
        (body_of(JOB, picture_with(*(b"X%d: a" % n for n in range(8)))), InvalidForm),
        (body_of(JOB, b"Content-Type: image/jpeg\r\n\r\ndata"), InvalidForm),
        (body_of(JOB, b"\r\ndata"), InvalidForm),
        (body_of(JOB, PICTURE + b"data", boundary=b"c"), InvalidForm),
        (b"preamble\r\n" + body_of(JOB), InvalidForm),
        (body_of(JOB).replace(b"--b\r\n", b"--b\n", 1), InvalidForm),
        (body_of(JOB, end=b"xy"), InvalidForm),
        (body_of(JOB, *[PICTURE + b"data"] * MAX_PARTS), InvalidForm),
        (body_of(JOB.replace(b"{", b"{" + b" " * MAX_JOB_BYTES)), UploadTooLarge),
        (b"", UploadIncomplete),
        (body_of(JOB, PICTURE + b"data")[:-6], UploadIncomplete),
        (body_of(JOB, PICTURE + b"data", end=b"\r\n"), UploadIncomplete),
        (b"--b", UploadIncomplete),
    ],
)
def test_what_is_no_form_of_ours_is_refused(body: bytes, error: type[BrokerError]) -> None:
    """Wrong order, strange parts, strange headers, a cut end: each has its code, however it was cut."""
    for cuts in ([], list(range(len(body))) if len(body) < 3_000 else [1_000]):
        assert read(body, cuts) == error.code


def test_what_follows_the_end_is_passed_over() -> None:
    """An epilogue is allowed, and most clients send a line break."""
    for end in (b"--", b"--\r\n", b"--\r\nwhatever --b\r\n"):
        assert read(body_of(JOB, end=end), [3, 9]) == (b'{"operation":"edit"}', [])


async def test_no_refusal_quotes_what_was_sent() -> None:
    """Neither the error nor what led to it holds a name of a file, a header or a byte of the body."""
    for body in (
        body_of(JOB, picture_with(b"Secret \xff: secret")),
        body_of(JOB, picture_with(b"secret")),
        body_of(JOB, picture_with().replace(b"picture", b"secret")),
    ):
        with pytest.raises(BrokerError) as caught:
            await parts_of(body, [])
        assert "secret" not in str(caught.value).lower()
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=b", "b"),
        ('multipart/form-data; charset=utf-8; boundary="a b\'(x)"', "a b'(x)"),
        ("multipart/form-data; BOUNDARY=----x", "----x"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ('multipart/form-data; boundary="a "', None),
        ('multipart/form-data; boundary="a\u00e9"', None),
        ("multipart/form-data; boundary=" + "x" * 71, None),
    ],
)
def test_a_boundary_has_the_form_that_boundaries_have(content_type: str, boundary: str | None) -> None:
    """RFC 2046: 1 to 70 of a few characters, and no space at the end."""
    if boundary is not None:
        assert boundary_of(content_type) == boundary
    else:
        with pytest.raises(InvalidForm):
            boundary_of(content_type)

"""What is the same is known again, and nothing of it is stored."""

from uuid import RFC_4122

from hypothesis import given
from hypothesis import strategies as st

from broker.sameness import Fingerprint, job_id_of

PLAIN: dict[str, str | int] = {"scale": 2, "quality": "fast"}


def fingerprint(
    *pictures: bytes,
    token: str = "token",
    operation: str = "upscale",
    parameters: dict[str, str | int] = PLAIN,
    texts: bytes = b"",
) -> bytes:
    found = Fingerprint(token)
    for picture in pictures:
        for at in range(0, len(picture), 3):
            found.update(picture[at : at + 3])
        found.end_picture()
    return found.finish(operation, parameters, texts)


def test_a_fingerprint_tells_same_from_other() -> None:
    """Same user, pictures, operation, parameters and texts: the same; any other: another."""
    known = fingerprint(b"body")
    assert fingerprint(b"body", parameters={"quality": "fast", "scale": 2}) == known
    others = [
        fingerprint(b"body", token="other"),
        fingerprint(b"bodz"),
        fingerprint(b"body", operation="restyle"),
        fingerprint(b"body", parameters={"scale": 3, "quality": "fast"}),
        fingerprint(b"body", parameters={}),
        fingerprint(b"body", texts=b'{"prompt":"a"}'),
        fingerprint(b"body", texts=b'{"prompt":"b"}'),
        fingerprint(),
        fingerprint(b"bo", b"dy"),
        fingerprint(b"b", b"ody"),
        fingerprint(b"dy", b"bo"),
        fingerprint(b"body", b""),
        fingerprint(b"", b"body"),
    ]
    assert len({known, *others}) == 1 + len(others)


def test_a_fingerprint_outlives_a_release() -> None:
    """A repeated PUT finds the job that the release before made of it."""
    known = "32c95371d4f9a0f046d1d77cb6fbae66fc30851d8920cd98d74fe9fe395ea600"
    assert fingerprint(b"body").hex() == known


@given(st.text(max_size=255), st.text(max_size=255))
def test_an_idempotency_key_makes_one_id(one: str, other: str) -> None:
    """The same key the same id, another key another one; it is a well-formed UUID that makers of none else use."""
    found = job_id_of("token", one)
    assert found == job_id_of("token", one)
    assert (found == job_id_of("token", other)) == (one == other)
    assert found != job_id_of("another token", one)
    assert (found.variant, found.version) == (RFC_4122, 8)

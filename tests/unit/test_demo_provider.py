"""The demo's eyes on a provider outside: what it would see if something had left that must not."""

import base64
import importlib
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO, StringIO
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from broker.attempts import Attempt, AttemptState
from broker.cli import main
from broker.client import User
from broker.custody import Copy, Domain, Evidence, Holder, What
from broker.demo.emulated import PROVIDERS, Emulator, EmulatorMissing, emulator
from broker.demo.outside import ids_of, introduce, show_key, show_theirs, show_what_left
from broker.demo.report import Report
from broker.demo.stage import PHOTO
from broker.demo.wire import Request, Sent
from broker.receipts import TYPE, CopyLine, Receipt, whole_seconds
from providers.base import Deletes, Exposure

URL = "http://127.0.0.1:4711"
KEY = "r8_canary"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
JOB_ID, ATTEMPT_ID = UUID("5e1c0f4a-93d2-4d0b-8f0e-2b7a61c9d7e3"), UUID("c07d9b52-6a4e-4f38-9c1d-e85f3a0b6d14")
USER = User(user_id="usr_Q0sAmPlE", token="lethe_t0ken")
IDS = ids_of(USER, [JOB_ID])


def quiet() -> Report:
    return Report(Console(file=StringIO(), width=200))


def request(body: bytes = b"", *, route: str = "order", path: str = "/v1/x", **headers: str) -> Request:
    return Request(route=route, method="POST", path=path, query={}, headers=headers, body=body)


def clean() -> bytes:
    """The photo, made anew from its pixels."""
    saved = BytesIO()
    with Image.open(PHOTO) as opened:
        Image.frombytes("RGB", opened.size, opened.convert("RGB").tobytes()).save(saved, "JPEG")
    return saved.getvalue()


def order(picture: bytes, more: bytes = b"") -> Request:
    """As an API with JSON gets it."""
    return request(b'{"image": "data:image/jpeg;base64,' + base64.b64encode(picture) + b'"}' + more)


def form(picture: bytes, more: bytes = b"") -> Request:
    """As an API with forms gets it."""
    return request(b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + picture + b"\r\n--b--" + more)


def left(*requests: Request) -> list[str]:
    report = quiet()
    show_what_left(Sent(requests=requests), PHOTO.read_bytes(), IDS, name="them", report=report)
    return report.failed


@pytest.mark.parametrize("wrapped", [order, form])
def test_a_clean_picture_passes_and_the_photo_does_not(wrapped: Callable[[bytes], Request]) -> None:
    """Inside base64 or as it is: pixels alone may leave; the photo itself fails as file, in fields and in texts."""
    assert left(wrapped(clean())) == []
    assert len(left(wrapped(PHOTO.read_bytes()))) == 3


@pytest.mark.parametrize("wrapped", [order, form])
def test_one_comment_is_enough(wrapped: Callable[[bytes], Request]) -> None:
    """A picture made anew that kept a single text fails."""
    comment = b"Planted comment: taken at home, nobody was to know"
    picture = clean()
    told = picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]
    assert len(left(wrapped(told))) == 2


@pytest.mark.parametrize("leak", [USER.user_id, USER.token, str(JOB_ID), JOB_ID.hex])
def test_an_id_is_seen_wherever_it_stands(leak: str) -> None:
    """In a body, a header, a path or a query, as it is or inside base64."""
    hidden = base64.b64encode(b'{"by": "' + leak.encode() + b'"}')
    good = order(clean())
    for bad in (
        request(b'{"user": "' + leak.encode() + b'"}'),
        request(b'{"metadata": "' + hidden + b'"}'),
        request(user_agent=leak),
        request(path=f"/v1/{leak}"),
        msgspec.structs.replace(request(), query={"user": leak}),
    ):
        assert len(left(good, bad)) == 1


def test_no_picture_at_all_is_no_proof() -> None:
    """Where the picture is not found in what was sent, its fields were not looked at: the check fails."""
    assert any("one picture was sent" in words for words in left(request(b"{}")))


def test_the_key_is_seen_where_it_does_not_belong() -> None:
    """Its place is the header of requests to the API: not a URL, not a body, not the fetch of an output."""
    good = [request(authorization=f"Bearer {KEY}"), request(route="output")]
    cases = {
        True: [good],
        False: [
            [*good, request(authorization=f"Bearer {KEY}", path=f"/v1?key={KEY}")],
            [*good, request(KEY.encode(), authorization=f"Bearer {KEY}")],
            [request(authorization=f"Bearer {KEY}", route="order"), request(x_api_key=KEY)],
            [request(route="output")],
            [*good, request(route="order")],
        ],
    }
    for is_right, orders in cases.items():
        for requests in orders:
            report = quiet()
            show_key(Sent(requests=tuple(requests)), KEY, report=report)
            assert (not report.failed) is is_right


def test_a_key_that_fetches_outputs_is_seen() -> None:
    """The request for an output file names its route: with the key it fails, whatever else is right."""
    report = quiet()
    both = (request(authorization=KEY), request(route="output", authorization=KEY))
    show_key(Sent(requests=both), KEY, report=report)
    assert report.failed


def copies(evidence: Evidence = Evidence.EXPIRES_BY) -> list[Copy]:
    row = Copy(
        id=1,
        job_id=JOB_ID,
        domain=Domain.PROVIDER,
        holder=Holder.PROVIDER,
        what=What.UPLOAD,
        ref=str(ATTEMPT_ID),
        detail="ephemeral",
        provider="them",
        fence=1,
        opened_at=NOW,
        closed_at=NOW,
        evidence=evidence,
        until=NOW,
        is_served=False,
        is_sealed=False,
    )
    return [msgspec.structs.replace(row, what=what) for what in (What.UPLOAD, What.OUTPUT, What.RECORD)]


def a_receipt(rows: list[Copy]) -> Receipt:
    at = whole_seconds(NOW)
    lines = tuple(
        CopyLine(
            domain=row.domain,
            holder=row.holder,
            what=row.what,
            opened_at=at,
            closed_at=at,
            evidence=row.evidence or "",
            provider=row.provider,
            until=at,
        )
        for row in rows
    )
    return Receipt(
        type=TYPE,
        job=JOB_ID,
        revision=1,
        operation="upscale",
        outcome="succeeded",
        code="",
        profile="demo",
        exposure="ephemeral",
        received_at=at,
        decided_at=at,
        settled_at=at,
        provider_copies="expires",
        copies=lines,
    )


def judged(rows: list[Copy], receipt: Receipt, *, cost_usd: float = 0.25) -> list[str]:
    attempt = Attempt(
        id=ATTEMPT_ID,
        job_id=JOB_ID,
        provider="them",
        is_outside=True,
        exposure=Exposure.EPHEMERAL,
        retention_s=3600,
        deletes=Deletes.TTL,
        state=AttemptState.SUCCEEDED,
        kind=None,
        after_s=None,
        handle=None,
        cost_usd=0.25,
        is_estimate=False,
        started_at=NOW,
        ended_at=NOW,
    )
    report = quiet()
    show_theirs(rows, [attempt], receipt, cost_usd=cost_usd, sent=Sent(requests=()), report=report)
    return report.failed


def test_what_a_provider_has_is_stated_whole() -> None:
    """Each part has a definite word, the receipt repeats it, and exposure and costs are those of the attempts."""
    rows = copies()
    assert judged(rows, a_receipt(rows)) == []
    assert len(judged(rows[:2], a_receipt(rows[:2]))) == 1
    assert len(judged(copies(Evidence.UNKNOWN), a_receipt(copies(Evidence.UNKNOWN)))) == 1
    assert len(judged(copies(Evidence.DELETED_BY_API), a_receipt(rows))) == 1
    assert len(judged(rows, msgspec.structs.replace(a_receipt(rows), exposure="local"))) == 1
    assert len(judged(rows, a_receipt(rows), cost_usd=0.0)) == 1


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_every_provider_of_the_demo_has_its_emulator(name: str, tmp_path: Path) -> None:
    """Key and exposure are the emulator's, lethe.toml is valid, the shipped profile refuses it, the demo's does not."""
    emulated = PROVIDERS[name]
    module = importlib.import_module(f"tests.emulators.{emulated.adapter}")
    assert emulated.api_key == module.SECRET
    assert module.CASE.exposure == emulated.exposure
    there = Emulator(emulated, URL, tmp_path)
    assert there.key_file.stat().st_mode & 0o077 == 0
    report = quiet()
    introduce(there, report)
    assert report.failed == []


async def test_without_a_checkout_it_says_so(tmp_path: Path) -> None:
    """Emulators are not installed: the file that is not there is named, and nothing is started."""
    with pytest.raises(EmulatorMissing, match=r"emulators/replicate\.py is not there"):
        async with emulator("replicate", tmp_path / "demo", checkout=tmp_path):
            pytest.fail("it started")
    assert not (tmp_path / "demo").exists()


def test_a_provider_that_the_demo_does_not_have_is_refused() -> None:
    """Those that there are, are listed."""
    said = CliRunner().invoke(main, ["demo", "--provider", "nobody"])
    assert said.exit_code == 2
    assert all(name in said.output for name in PROVIDERS)

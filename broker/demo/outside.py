"""The demo's chapter about a provider outside: what it was sent, what is known of what it has, and what it cost."""

import base64
from collections import Counter
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from broker.attempts import Attempt
from broker.client import User
from broker.custody import Copy, Domain, Evidence
from broker.demo.emulated import STRICTEST, Emulator
from broker.demo.metadata import details
from broker.demo.report import Report
from broker.demo.wire import Request, Sent
from broker.receipts import Receipt, whole_seconds
from broker.sniff import dimensions
from broker.verify import sentences

_DEFINITE: Final = frozenset({Evidence.DELETED_BY_API, Evidence.EXPIRES_BY, Evidence.KEPT_BY_TERMS})
_PARTS: Final = ("upload", "output", "record")
_LONG_ENOUGH: Final = 5
OUTPUT_ROUTE: Final = "output"
"""What emulators call the fetch of an output's file; all other routes are the API."""


def introduce(emulator: Emulator, report: Report) -> None:
    """Say where pictures will go, and which profile lets them."""
    report.step(f"{emulator.name} is emulated at {emulator.url}; this lethe.toml leads there")
    for line in emulator.config_file.read_text().splitlines():
        report.say(f"  {line}".rstrip())
    refusal = emulator.refused_by(STRICTEST)
    why = refusal.reason if refusal else "it does not"
    report.check(f"the shipped profile {STRICTEST} would refuse it: {why}", refusal is not None)
    is_allowed = emulator.refused_by(str(emulator.profile_file)) is None
    report.check(f"the profile of this demo allows it ({emulator.profile_file})", is_allowed)


def show_what_left(sent: Sent, photo: bytes, ids: Sequence[bytes], *, name: str, report: Report) -> None:
    """Show what the provider got, byte for byte, against what the photo and its job had to tell."""
    report.step(f"What left: every request that {name} got")
    for (method, route), times in Counter((r.method, r.route) for r in sent.requests).items():
        size = sum(len(r.said) for r in sent.requests if (r.method, r.route) == (method, route))
        report.say(f"{route}: {times} × {method}, {size:,} bytes with headers")
    _compare(sent, photo, name=name, report=report)
    told = (detail.text.encode() for detail in details(photo) if len(detail.text) > _LONG_ENOUGH)
    texts = [text for text in told if text in photo]  # others are numbers, put into words by whoever read them
    found = sent.found([*texts, *ids])
    report.check("none of the photo's texts is in any byte of them, base64 decoded", not found & set(texts))
    report.check("no user id, no token, no job id is: not as text, not as hex, not as bytes", not found & set(ids))
    planted = _carrying(photo, ids)
    is_able = planted.found([*texts, *ids]) == {*texts, *ids} and bool(planted.pictures[0].told)
    report.check("the same look finds all of it in an order that does carry the photo and the ids", is_able)


def _compare(sent: Sent, photo: bytes, *, name: str, report: Report) -> None:
    pictures = sent.pictures
    sizes = ", ".join(f"{p.size[0]}×{p.size[1]}" for p in pictures if p.size)
    is_one = len(pictures) == 1 and pictures[0].size == dimensions(photo) and not pictures[0].content.startswith(photo)
    report.check(
        f"one picture was sent, {sizes or 'none'}: made anew from the pixels, not the photo's own file", is_one
    )
    left = [detail for picture in pictures for detail in picture.told]
    told = details(photo)
    report.details(told, left, where=f"in what {name} got")
    report.check(f"none of the photo's {len(told)} EXIF, GPS, XMP and comment fields is in it", not left)


def _carrying(photo: bytes, more: Sequence[bytes]) -> Sent:
    """An order that says everything it must not."""
    body = b'{"image": "data:image/jpeg;base64,' + base64.b64encode(photo) + b'", "ids": "' + b" ".join(more) + b'"}'
    order = Request(route="order", method="POST", path="/", query={}, headers={}, body=body)
    return Sent(requests=(order,))


def show_key(sent: Sent, api_key: str, *, report: Report) -> None:
    """Show with which requests the API key went, and with which it did not."""
    with_key = sent.with_word(api_key)
    fetches = [request for request in sent.requests if request.route == OUTPUT_ROUTE]
    calls = [request for request in sent.requests if request.route != OUTPUT_ROUTE]
    is_hidden = all(_has_it_in_its_header_alone(request, api_key) for request in with_key)
    fetched = f"; output files were fetched without it ({len(fetches)} ×)" if fetches else ""
    words = f"the API key came with {len(calls)} requests to its API, as a header and nowhere else{fetched}"
    report.check(words, is_hidden and bool(calls) and with_key == calls)


def _has_it_in_its_header_alone(request: Request, api_key: str) -> bool:
    rest = {name: value for name, value in request.headers.items() if name != "authorization"}
    bare = msgspec.structs.replace(request, headers=rest)
    return api_key in request.headers.get("authorization", "") and api_key.encode() not in bare.said


def show_theirs(
    copies: Sequence[Copy],
    attempts: Sequence[Attempt],
    receipt: Receipt,
    *,
    cost_usd: float,
    sent: Sent,
    report: Report,
) -> None:
    """Show what is known of what the provider had, that the receipt says the same, and what it cost."""
    report.step("What is known of what it had")
    report.theirs(copies)
    definite = sorted(str(copy.what) for copy in copies if copy.evidence in _DEFINITE)
    is_whole = definite == sorted(_PARTS) and len(copies) == len(_PARTS)
    report.check("picture, output and record of the order each have a word, and none is unknown", is_whole)
    stated = {(c.what, c.evidence, c.until, c.provider) for c in receipt.copies if c.domain == Domain.PROVIDER}
    rows = {(c.what, c.evidence, whole_seconds(c.until) if c.until else "", c.provider) for c in copies}
    report.check("the signed receipt says the same", stated == rows)
    exposures = {str(attempt.exposure) for attempt in attempts}
    report.check(f"exposure: {receipt.exposure}, as configured", exposures == {receipt.exposure})
    for attempt in attempts:
        was_sent = "went along, the only id of ours that may" if sent.with_word(str(attempt.id)) else "did not go along"
        report.say(f"attempt {attempt.id}: its id {was_sent}")
        how = "estimated" if attempt.is_estimate else "as the provider counted"
        report.say(f"it {attempt.state} at {attempt.provider} for {attempt.cost_usd:.6f} USD ({how})")
    is_summed = 0 < cost_usd == sum(attempt.cost_usd for attempt in attempts)
    report.check(f"the job cost {cost_usd:.6f} USD: what its attempts cost together", is_summed)
    report.step("The receipt, in words")
    for sentence in sentences(receipt):
        report.say(sentence)


def ids_of(user: User, job_ids: Sequence[UUID]) -> list[bytes]:
    """Everything by which a user or a job could be known again."""
    forms = [form for one in job_ids for form in (str(one).encode(), one.hex.encode(), one.bytes)]
    return [user.user_id.encode(), user.user_id.partition("_")[2].encode(), user.token.encode(), *forms]

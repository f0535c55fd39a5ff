"""The demo's story, top to bottom: a photo goes in, comes out larger, and every copy of it is shown to be gone."""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec
from rich.console import Console

from broker.client import Client, User
from broker.demo.evidence import Evidence, of_upload
from broker.demo.metadata import details
from broker.demo.report import Report
from broker.demo.search import pieces, search
from broker.receipts import ReceiptInvalid
from broker.sniff import dimensions
from broker.submit import Order, finish, progress_bars, send
from broker.supervisor import stop_on_signals
from broker.up import Stack, unless_stopped
from broker.verify import check, read_keys

PHOTO: Final = Path(__file__).with_name("photo.jpg")
SCALE: Final = 2


class DemoFailed(Exception):
    """Something that the demo checks does not hold."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Where the demo runs, and where it leaves its result."""

    directory: Path | None
    output: Path


async def demo(plan: Plan, console: Console) -> None:
    """Run the demo; raise DemoFailed naming the checks that failed."""
    stopping = stop_on_signals(asyncio.get_running_loop())
    report = Report(console)
    with _directory(plan.directory) as directory:
        await unless_stopped(_run(directory, plan.output, report), stopping)
    if report.failed:
        raise DemoFailed("; ".join(report.failed))
    report.step("All checks passed. Everything that was started has been stopped.")


async def _run(directory: Path, output: Path, report: Report) -> None:
    report.step("Starting Postgres, Redis, keyholder, broker and gpu worker")
    before_s = time.monotonic()
    async with Stack(directory, report=report.say) as stack, Client(stack.url) as client:
        report.say(f"up after {time.monotonic() - before_s:.1f} s, at {stack.url}")
        async with Evidence(stack.settings) as evidence:
            await _tell(stack, client, evidence, output=output, report=report)


async def _tell(stack: Stack, client: Client, evidence: Evidence, *, output: Path, report: Report) -> None:
    before_s = time.monotonic()
    report.step("An anonymous user sends a photo")
    user = await client.mint_user()
    report.say(f"{user.user_id}: nothing was asked, nothing else is stored")
    job_id = await _main_job(client, output, report)
    report.say(f"result saved as {output}, {time.monotonic() - before_s:.2f} s after the stack was up")
    compare(output, report)
    await _read_receipt(client, job_id, report)
    await _look_for_copies(evidence, user, job_id, report)
    await _search_files(stack.directory, evidence, user, job_id, report)
    await _delete(client, evidence, user, job_id, report)


async def _main_job(client: Client, output: Path, report: Report) -> str:
    job_id = str(uuid4())
    order = Order(file=PHOTO, operation="upscale", parameters={"scale": str(SCALE)}, output=output)
    with progress_bars(report.console) as bars:
        await send(client, order, job_id=job_id, bars=bars)
        await finish(client, job_id, operation=order.operation, bars=bars)
        await client.download(job_id, 0, output)
    return job_id


def compare(output: Path, report: Report) -> None:
    """Show the photo beside the result, and that nothing but pixels came through."""
    report.step("Before and after")
    photo, result = PHOTO.read_bytes(), output.read_bytes()
    before, after = dimensions(photo), dimensions(result)
    assert before is not None
    report.say(f"before: {before[0]}×{before[1]} pixels, {len(photo):,} bytes")
    report.say(f"after:  {after[0]}×{after[1]} pixels, {len(result):,} bytes" if after else "after: not a picture")
    report.check(f"the result is {SCALE} times wider and higher", after == (before[0] * SCALE, before[1] * SCALE))
    told, left = details(photo), details(result)
    report.details(told, left)
    report.check(f"none of the photo's {len(told)} EXIF, GPS, XMP and comment fields is in the result", not left)
    texts = [detail.text.encode() for detail in told if len(detail.text) > 5]
    report.check("nor is any of their text anywhere in its bytes", not any(text in result for text in texts))


async def _read_receipt(client: Client, job_id: str, report: Report) -> None:
    report.step("The receipt, verified offline with the key from /v1/privacy/keys")
    keys = read_keys(await client.receipt_keys())
    note = await client.receipt(job_id)
    try:
        receipt = check(note, keys)
    except ReceiptInvalid as exc:
        report.check(f"the receipt is valid ({exc})", is_true=False)
        return
    report.check(f"it is signed with {'+'.join(keys[0].split('+')[:2])}", is_true=True)
    is_about_it = str(receipt.job) == job_id and receipt.outcome == "succeeded"
    report.check(f"it says: upload received {receipt.received_at}, every copy gone {receipt.settled_at}", is_about_it)
    with contextlib.suppress(ReceiptInvalid):
        check(note.replace(receipt.received_at, "2001-01-01T00:00:00Z"), keys)
        report.check("a receipt that was altered is refused", is_true=False)
        return
    report.check("a receipt that was altered is refused", is_true=True)


async def _look_for_copies(evidence: Evidence, user: User, job_id: str, report: Report) -> None:
    report.step("Custody: every copy there was, and how it is known to be gone")
    copies = await evidence.copies(await evidence.job(user.user_id, job_id))
    report.custody(copies)
    uploads = of_upload(copies)
    report.check(f"all {len(uploads)} copies of the upload are closed", all(not copy.is_open for copy in uploads))
    still = [copy for copy in uploads if await evidence.is_there(copy)]
    report.check("the upload's file is gone from the blob directory, and the keyholder has no key for it", not still)
    # Looking has to be able to find something, else finding nothing says nothing.
    kept = [copy for copy in copies if copy.is_open]
    seen = [copy for copy in kept if await evidence.is_there(copy)]
    report.check(
        "the same look does find the result's file and key, which are kept so far", len(seen) == len(kept) == 2
    )


async def _search_files(directory: Path, evidence: Evidence, user: User, job_id: str, report: Report) -> None:
    job = await evidence.job(user.user_id, job_id)
    wanted = pieces(PHOTO.read_bytes())
    result = await asyncio.to_thread(search, directory, [*wanted, job.id.bytes])
    found = sorted({place for piece in wanted for place in result.places(piece)})
    size_mb = result.size_bytes / 1e6
    report.check(f"no piece of the photo in any of {result.files} files ({size_mb:.0f} MB) of the stack", not found)
    report.check("the same search does find the job's id, which may be kept", bool(result.places(job.id.bytes)))


async def _delete(client: Client, evidence: Evidence, user: User, job_id: str, report: Report) -> None:
    report.step("The user has saved the result: DELETE")
    copies = await evidence.copies(await evidence.job(user.user_id, job_id))
    await client.delete(job_id)
    left = [copy for copy in copies if await evidence.is_there(copy)]
    report.check("the result's file and key are gone too", not left)


@contextlib.contextmanager
def _directory(given: Path | None) -> Generator[Path]:
    """A fresh directory goes at the end, whatever happens; a given one stays."""
    if given is not None:
        yield given
        return
    parent = Path(".lethe").absolute()
    parent = parent if os.access(parent, os.W_OK) else Path(tempfile.gettempdir())
    fresh = Path(tempfile.mkdtemp(prefix="demo-", dir=parent))
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)

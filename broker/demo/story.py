"""The demo's story, top to bottom: a photo goes in, comes out larger, and every copy of it is shown to be gone."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec
from rich.console import Console

from broker.client import Client, User
from broker.demo.emulated import Emulated, Emulator, emulator
from broker.demo.evidence import Evidence, of_upload, ours, theirs
from broker.demo.journeys import JOURNEYS
from broker.demo.metadata import details
from broker.demo.outside import ids_of, introduce, show_key, show_theirs, show_what_left
from broker.demo.report import Report
from broker.demo.search import pieces, search
from broker.demo.stage import PHOTO, stage
from broker.receipts import Receipt, ReceiptInvalid
from broker.scratch import scratch_directory
from broker.sniff import dimensions
from broker.submit import Order, finish, progress_bars, send
from broker.supervisor import stop_on_signals
from broker.up import Stack, unless_stopped
from broker.verify import check, read_keys

MAIN: Final = "minimal"
"""The profile of the main job."""
SCALE: Final = 2


class DemoFailed(Exception):
    """Something that the demo checks does not hold."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where the demo runs and leaves its result; which provider does the work, a model of ours if none; whose journey.
    """

    directory: Path | None
    output: Path
    provider: str = ""
    profile: str = ""
    """One of JOURNEYS; the main job if empty."""


async def demo(plan: Plan, console: Console) -> None:
    """Run the demo; raise DemoFailed naming the checks that failed."""
    stopping = stop_on_signals(asyncio.get_running_loop())
    report = Report(console)
    given = plan.directory
    with contextlib.nullcontext(given) if given else scratch_directory("demo") as directory:
        work = _play(directory, plan, report) if plan.profile else _run(directory, plan, report)
        await unless_stopped(work, stopping)
    if report.failed:
        raise DemoFailed("; ".join(report.failed))
    report.step("All checks passed. Everything that was started has been stopped.")


async def _play(directory: Path, plan: Plan, report: Report) -> None:
    journey = JOURNEYS[plan.profile]
    report.step(f"{journey.profile}: {journey.story}")
    async with stage(journey, directory, plan.output, report) as set_up:
        await journey.play(set_up)


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever takes part: the stack, who uses it, who looks behind it, and the provider outside, if there is one."""

    stack: Stack
    client: Client
    evidence: Evidence
    report: Report
    outside: Emulator | None
    user: User


async def _run(directory: Path, plan: Plan, report: Report) -> None:
    async with contextlib.AsyncExitStack() as stage:
        outside = await stage.enter_async_context(emulator(plan.provider, directory)) if plan.provider else None
        if outside:
            introduce(outside, report)
        report.step(f"Starting Postgres, Redis, keyholder, broker and {'relay' if outside else 'gpu'} worker")
        before_s = time.monotonic()
        given = outside.settings if outside else None
        stack = await stage.enter_async_context(Stack(directory, report=report.say, given=given))
        report.say(f"up after {time.monotonic() - before_s:.1f} s, at {stack.url}")
        client = await stage.enter_async_context(Client(stack.url))
        evidence = await stage.enter_async_context(Evidence(stack.settings))
        report.step("An anonymous user sends a photo")
        user = await client.mint_user()
        report.say(f"{user.user_id}: nothing was asked, nothing else is stored")
        scene = Scene(stack=stack, client=client, evidence=evidence, report=report, outside=outside, user=user)
        await _tell(scene, plan.output)


async def _tell(scene: Scene, output: Path) -> None:
    before_s = time.monotonic()
    report = scene.report
    order = _order(scene.outside.emulated if scene.outside else None, output)
    job_id = await _main_job(scene.client, order, report)
    report.say(f"result saved as {output}, {time.monotonic() - before_s:.2f} s after the stack was up")
    compare(output, report, factor=scene.outside.emulated.factor if scene.outside else SCALE)
    receipt = await _read_receipt(scene.client, job_id, report)
    if scene.outside and receipt:
        await _look_outside(scene, scene.outside, job_id, receipt)
    await _look_for_copies(scene, job_id)
    await _search_files(scene, job_id, order)
    await _delete(scene, job_id)


def _order(emulated: Emulated | None, output: Path) -> Order:
    if emulated is None:
        return Order(file=PHOTO, operation="upscale", parameters={"scale": str(SCALE)}, output=output)
    return Order(
        file=PHOTO,
        operation=emulated.operation,
        parameters=emulated.parameters,
        texts=emulated.texts,
        output=output,
    )


async def _main_job(client: Client, order: Order, report: Report) -> str:
    job_id = str(uuid4())
    with progress_bars(report.console) as bars:
        await send(client, order, job_id=job_id, bars=bars)
        await finish(client, job_id, operation=order.operation, bars=bars)
        await client.download(job_id, 0, order.output)
    return job_id


async def _look_outside(scene: Scene, outside: Emulator, job_id: str, receipt: Receipt) -> None:
    job = await scene.evidence.job(scene.user.user_id, job_id)
    sent = await outside.sent()
    ids = ids_of(scene.user, [job.id, job.public_id])
    show_what_left(sent, PHOTO.read_bytes(), ids, name=outside.name, report=scene.report)
    show_key(sent, outside.emulated.api_key, report=scene.report)
    copies, attempts = theirs(await scene.evidence.copies(job)), await scene.evidence.attempts(job)
    show_theirs(copies, attempts, receipt, cost_usd=job.cost_usd, sent=sent, report=scene.report)


def compare(output: Path, report: Report, *, factor: float = SCALE) -> None:
    """Show the photo beside the result, and that nothing but pixels came through."""
    report.step("Before and after")
    photo, result = PHOTO.read_bytes(), output.read_bytes()
    before, after = dimensions(photo), dimensions(result)
    assert before is not None
    report.say(f"before: {before[0]}×{before[1]} pixels, {len(photo):,} bytes")
    report.say(f"after:  {after[0]}×{after[1]} pixels, {len(result):,} bytes" if after else "after: not a picture")
    report.check(
        f"the result is {factor:g} times as wide and as high", after == (before[0] * factor, before[1] * factor)
    )
    told, left = details(photo), details(result)
    report.details(told, left)
    report.check(f"none of the photo's {len(told)} EXIF, GPS, XMP and comment fields is in the result", not left)
    texts = [detail.text.encode() for detail in told if len(detail.text) > 5]
    report.check("nor is any of their text anywhere in its bytes", not any(text in result for text in texts))


async def _read_receipt(client: Client, job_id: str, report: Report) -> Receipt | None:
    report.step("The receipt, verified offline with the key from /v1/privacy/keys")
    keys = read_keys(await client.receipt_keys())
    note = await client.receipt(job_id)
    try:
        receipt = check(note, keys)
    except ReceiptInvalid as exc:
        report.check(f"the receipt is valid ({exc})", is_true=False)
        return None
    report.check(f"it is signed with {'+'.join(keys[0].split('+')[:2])}", is_true=True)
    is_about_it = str(receipt.job) == job_id and receipt.outcome == "succeeded"
    report.check(f"it says: upload received {receipt.received_at}, every copy gone {receipt.settled_at}", is_about_it)
    with contextlib.suppress(ReceiptInvalid):
        check(note.replace(receipt.received_at, "2001-01-01T00:00:00Z"), keys)
        report.check("a receipt that was altered is refused", is_true=False)
        return receipt
    report.check("a receipt that was altered is refused", is_true=True)
    return receipt


async def _look_for_copies(scene: Scene, job_id: str) -> None:
    report, evidence = scene.report, scene.evidence
    report.step("Custody: every copy that we had, and how it is known to be gone")
    copies = ours(await evidence.copies(await evidence.job(scene.user.user_id, job_id)))
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


async def _search_files(scene: Scene, job_id: str, order: Order) -> None:
    report = scene.report
    job = await scene.evidence.job(scene.user.user_id, job_id)
    typed = [text.encode() for text in order.texts.values()]
    wanted = [*pieces(PHOTO.read_bytes()), *typed]
    keys = [scene.outside.emulated.api_key.encode()] if scene.outside else []
    result = await asyncio.to_thread(search, scene.stack.directory, [*wanted, *keys, job.id.bytes])
    found = sorted({place for piece in wanted for place in result.places(piece)})
    size_mb = result.size_bytes / 1e6
    what = "no piece of the photo, and nothing of what was typed," if typed else "no piece of the photo"
    report.check(f"{what} in any of {result.files} files ({size_mb:.0f} MB) of the stack", not found)
    report.check("the same search does find the job's id, which may be kept", bool(result.places(job.id.bytes)))
    for key in keys:
        where = str(scene.outside.key_file) if scene.outside else ""
        report.check("the API key is in no file but the one that it was read from", result.places(key) == [where])


async def _delete(scene: Scene, job_id: str) -> None:
    scene.report.step("The user has saved the result: DELETE")
    copies = ours(await scene.evidence.copies(await scene.evidence.job(scene.user.user_id, job_id)))
    await scene.client.delete(job_id)
    left = [copy for copy in copies if await scene.evidence.is_there(copy)]
    scene.report.check("the result's file and key are gone too", not left)

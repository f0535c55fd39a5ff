"""The run, top to bottom: start a stack, prove that leaks are found, then for each fault order, look, strike, look."""

import asyncio
import platform
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from broker.children import StackError
from broker.forensics.custody import keys_of, longest_end_ms, wait_for_copies
from broker.forensics.encodings import Encoding
from broker.forensics.faults import Fault, Scene
from broker.forensics.findings import JobsFindings, PrivacyReport, judge
from broker.forensics.inspection import Inspection, Say
from broker.forensics.markers import IN_A_FILE, Family, Place, plant
from broker.forensics.network import own_network
from broker.forensics.orders import Ordered, Phones
from broker.forensics.places import LEFT_OUT, LOOPBACK, MEMORY, surfaces_of
from broker.forensics.provider import held_provider
from broker.forensics.search import Quarry
from broker.forensics.stage import Stage, settings_for
from broker.receipts import ReceiptInvalid, Signer, whole_seconds
from broker.scratch import scratch_directory
from broker.store.signing_key import load_signer
from broker.verify import check, read_keys

_HELD_WITHIN_S: Final = 60.0
_FINAL_WITHIN_S: Final = 90.0
_NEVER_IN: Final = "never taken in"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What happens, to how many jobs each, and which key signs the report: the stack's own if none is named."""

    faults: tuple[Fault, ...]
    jobs: int = 1
    profile: str = "minimal"
    key_file: Path | None = None


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A report and who signs it."""

    report: PrivacyReport
    signer: Signer


async def investigate(plan: Plan, *, watch: Say) -> Signed:
    """Run it all on a fresh stack, which is gone afterwards; `watch` is told what happens."""
    with own_network(), scratch_directory("forensics") as directory:
        async with AsyncExitStack() as exits:
            family = Family()
            result = plant(Family(), "the provider's answer").picture()
            provider = await exits.enter_async_context(held_provider(result))
            in_house = any(fault.operation != "edit" for fault in plan.faults)
            settings = settings_for(directory, provider, profile=plan.profile, in_house=in_house)
            stage = Stage(directory, settings=settings, report=watch)
            await stage.start()
            exits.push_async_callback(stage.stop)
            phones = Phones(stage.stack.url)
            exits.push_async_callback(phones.aclose)
            scene = Scene(stage=stage, phones=phones, provider=provider)
            return await _Run(scene, plan, family, watch=watch).report()


class _Run:
    """One run on a stack that is up."""

    def __init__(self, scene: Scene, plan: Plan, family: Family, *, watch: Say) -> None:
        self._scene = scene
        self._plan = plan
        self._family = family
        self._watch = watch
        self._keys: dict[bytes, str] = {}
        self._surfaces = surfaces_of(scene.stage, since_s=time.time())
        self._inspection = Inspection(self._surfaces, watch=watch)
        self._jobs: list[JobsFindings] = []

    async def report(self) -> Signed:
        """Tell the whole story, and judge."""
        began_at = whole_seconds(datetime.now(UTC))
        try:
            for surface in self._surfaces:
                await surface.begin()
            await self._inspection.before()
            await self._inspection.control()
            for faults in phases(self._plan.faults):
                await self._phase(faults)
        finally:
            for surface in self._surfaces:
                await surface.end()
        settings = self._scene.stage.stack.settings
        signer = load_signer(self._plan.key_file or Path(settings.receipt_key_file), settings.receipt_name)
        return Signed(report=self._judged(began_at), signer=signer)

    async def _phase(self, faults: Sequence[Fault]) -> None:
        name = ", ".join(fault.name for fault in faults)
        async with AsyncExitStack() as uploads:
            jobs = {
                fault.name: [await self._order(fault, n, uploads) for n in range(self._plan.jobs)] for fault in faults
            }
            held = [job for fault in faults if fault.is_held for job in jobs[fault.name]]
            await self._until_held(held)
            self._keys |= await keys_of(self._scene.stage, held)
            await self._inspection.live(Quarry(self._family, self._keys), phase=f"while jobs run ({name})")
            for fault in faults:
                await self._see_half(fault, jobs[fault.name])
                self._watch(f"{fault.name}: {fault.words}")
                await fault.cause(self._scene, jobs[fault.name])
        for fault in faults:
            await self._follow(fault, jobs[fault.name])
        await self._until_closed()
        await self._inspection.forget()
        for job in (job for some in jobs.values() for job in some if job.id):
            await self._scene.phones.ask_around(job)
        await self._inspection.after(Quarry(self._family, self._keys), phase=f"after {name}")
        for fault in faults:
            self._jobs.append(await self._became(fault, jobs[fault.name]))

    async def _order(self, fault: Fault, n: int, uploads: AsyncExitStack) -> Ordered:
        name = f"job {n + 1} of {fault.name}"
        user = await self._scene.phones.new_user()
        planted = plant(self._family, name)
        job = Ordered(name=name, planted=planted, operation=fault.operation, user=user)
        self._scene.provider.expect(job.marker)
        if fault.is_half:
            await uploads.enter_async_context(self._scene.phones.half_ordered(job))
            await wait_for_copies(self._scene.stage, are_open=True, within_s=_HELD_WITHIN_S)
        else:
            await self._scene.phones.order(job, finish_within_s=fault.finish_within_s)
        return job

    async def _until_held(self, jobs: Sequence[Ordered]) -> None:
        try:
            async with asyncio.timeout(_HELD_WITHIN_S):
                for job in jobs:
                    await self._scene.provider.arrived(job.marker)
        except TimeoutError:
            raise StackError("no worker brought a job to the provider in time") from None

    async def _see_half(self, fault: Fault, jobs: Sequence[Ordered]) -> None:
        """Note that uploads which are to be cut off are coming in still: else the fault would not be caused."""
        if fault.is_half and await wait_for_copies(self._scene.stage, are_open=True, within_s=0):
            for job in jobs:
                job.status = _NEVER_IN

    async def _follow(self, fault: Fault, jobs: Sequence[Ordered]) -> None:
        for job in jobs:
            if not fault.is_half:
                await self._scene.phones.follow(job, within_s=_FINAL_WITHIN_S)

    async def _until_closed(self) -> None:
        if not await wait_for_copies(self._scene.stage, are_open=False, within_s=_FINAL_WITHIN_S):
            raise StackError("a copy of an upload is open still, long after its job was to be over")

    async def _became(self, fault: Fault, jobs: Sequence[Ordered]) -> JobsFindings:
        receipts = [await self._receipt(job) for job in jobs if job.id]
        ended = dict(Counter(job.status for job in jobs))
        is_told = fault.is_half or sum(receipts) == len(jobs)
        return JobsFindings(
            fault=fault.name,
            words=fault.words,
            jobs=len(jobs),
            ended=ended,
            is_as_expected=is_told and set(ended) <= fault.ends_as,
            receipts=sum(receipts),
            longest_end_ms=await longest_end_ms(self._scene.stage, jobs),
        )

    async def _receipt(self, job: Ordered) -> bool:
        keys = read_keys(await self._scene.phones.receipt_keys())
        try:
            return str(check(await self._scene.phones.receipt(job), keys).job) == job.id
        except ReceiptInvalid:
            return False

    def _judged(self, began_at: str) -> PrivacyReport:
        report = PrivacyReport(
            began_at=began_at,
            ended_at=whole_seconds(datetime.now(UTC)),
            versions=_versions(),
            encodings=[encoding.value for encoding in Encoding],
            markers=len(self._family.labels),
            keys=len(self._keys),
            surfaces=list(self._inspection.findings.values()),
            jobs=self._jobs,
            left_out=LEFT_OUT,
        )
        expected = {LOOPBACK: {*IN_A_FILE}}
        if any(fault.is_held for fault in self._plan.faults):
            expected |= {LOOPBACK: {*IN_A_FILE, Place.PROMPT}, MEMORY: {Place.PROMPT, Place.PIXELS}}
        judge(report, expected_live={name: {*map(str, places)} for name, places in expected.items()})
        return report


def phases(faults: Sequence[Fault]) -> list[list[Fault]]:
    """What can happen side by side happens at once; what hits everything comes by itself, afterwards."""
    calm = [fault for fault in faults if not fault.is_strike]
    return [*([calm] if calm else []), *([fault] for fault in faults if fault.is_strike)]


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "kernel": platform.release()}

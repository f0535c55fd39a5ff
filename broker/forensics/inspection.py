"""Looks everywhere: for leaks that were planted, for what is there while jobs run, and for what is left."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack

from broker.forensics.encodings import Encoding, planted
from broker.forensics.findings import Find, SurfaceFindings
from broker.forensics.markers import Family, place_of
from broker.forensics.search import Found, Known, Quarry
from broker.forensics.surfaces import NotScanned, Part, Surface

Say = Callable[[str], None]
"""Told what happens: which surface is looked at, which fault is caused."""


class Inspection:
    """All surfaces, and what was found on each."""

    def __init__(self, surfaces: Sequence[Surface], *, watch: Say) -> None:
        self._surfaces = surfaces
        self._watch = watch
        self._known = Known()
        self.findings = {surface.name: SurfaceFindings(name=surface.name) for surface in surfaces}

    async def before(self) -> None:
        """Read everything once, before anything is planted: what is there already need not be searched again."""
        for surface in self._surfaces:
            await self._look(surface, Quarry(), "before")

    async def control(self) -> None:
        """Plant a leak on every surface in every encoding, and see which are found; then take them away."""
        family = Family()
        async with AsyncExitStack() as leaks:
            for surface in self._surfaces:
                await self._plant(surface, family, leaks)
            quarry = Quarry(family)
            for surface in self._surfaces:
                self._compare(surface.name, await self._look(surface, quarry, "control"))

    async def live(self, quarry: Quarry, *, phase: str) -> None:
        """Count what is there while jobs run; nothing of it is a leak."""
        for surface in self._surfaces:
            for (found, _), times in (await self._look(surface, quarry, phase)).items():
                live = self.findings[surface.name].live
                place = place_of(found.label)
                live[place] = live.get(place, 0) + times

    async def after(self, quarry: Quarry, *, phase: str) -> None:
        """Note everything that is found: there must be nothing."""
        for surface in self._surfaces:
            finds = await self._look(surface, quarry, phase)
            self.findings[surface.name].after += [
                Find(phase=phase, what=found.label, encoding=found.encoding, part=part, times=times)
                for (found, part), times in finds.items()
            ]

    async def forget(self) -> None:
        """Let go of what has passed by so far."""
        for surface in self._surfaces:
            await surface.forget()

    async def _plant(self, surface: Surface, family: Family, leaks: AsyncExitStack) -> None:
        findings = self.findings[surface.name]
        markers = {encoding: family.marker(f"{surface.name}: {encoding}") for encoding in Encoding}
        forms = {encoding: planted(marker, encoding) for encoding, marker in markers.items()}
        try:
            await leaks.enter_async_context(surface.planted(forms))
        except NotScanned as exc:
            findings.not_scanned = str(exc)
        else:
            findings.control_planted = len(forms)

    def _compare(self, name: str, finds: Counter[tuple[Found, str]]) -> None:
        findings = self.findings[name]
        seen = {found for found, _ in finds}
        expected = [Found(label=f"{name}: {encoding}", encoding=encoding) for encoding in Encoding]
        findings.missed = [found.encoding for found in expected if found not in seen]
        findings.control_found = len(expected) - len(findings.missed)

    async def _look(self, surface: Surface, quarry: Quarry, phase: str) -> Counter[tuple[Found, str]]:
        self._watch(f"{phase}: {surface.name}")
        findings = self.findings[surface.name]
        finds: Counter[tuple[Found, str]] = Counter()
        findings.parts = findings.size_bytes = 0
        try:
            async for part in surface.parts():
                found, size_bytes = await asyncio.to_thread(self._look_at, part, quarry)
                findings.parts += 1
                findings.size_bytes += size_bytes
                finds.update({(one, part.name): times for one, times in found.items()})
        except NotScanned as exc:
            findings.not_scanned = findings.not_scanned or str(exc)
        findings.hidden_bytes = surface.hidden_bytes
        return finds

    def _look_at(self, part: Part, quarry: Quarry) -> tuple[Counter[Found], int]:
        size_bytes = 0
        seen: set[int] = set()

        def counted() -> Iterator[bytes]:
            nonlocal size_bytes
            for block in part.blocks:
                size_bytes += len(block)
                yield block

        found = quarry.look(self._known.fresh(counted(), seen))
        if not found:
            self._known.remember(seen)
        return found, size_bytes

"""
Crash points by name, and the file by which whoever runs the test tells a process what to do at one.

A name is `role:kind:verb:n:edge`: the n-th call of a verb since the order was given, before or after it is carried out.
`verb+` counts only those calls of a verb that have found something to do.
"""

import os
import signal
import time
from collections import Counter
from enum import StrEnum
from pathlib import Path

import msgspec


class Edge(StrEnum):
    """On which side of a call a point lies."""

    BEFORE = "before"
    DURING = "during"  # of a blob: its first part is written, and more is to come
    AFTER = "after"


class Mode(StrEnum):
    """What a process does at a point."""

    RECORD = "record"  # write down every point that is passed
    KILL = "kill"  # end at the named one as by kill -9
    CUT = "cut"  # stand still at the named one: the power is about to go


class Point(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A moment in the life of a process."""

    role: str
    kind: str
    verb: str
    n: int
    edge: Edge

    def __str__(self) -> str:
        return f"{self.role}:{self.kind}:{self.verb}:{self.n}:{self.edge}"

    @property
    def call(self) -> tuple[str, str, str]:
        """Whose call of what it is."""
        return self.role, self.kind, self.verb.removesuffix("+")

    @property
    def is_effective(self) -> bool:
        """Whether only calls that found something to do are counted."""
        return self.verb.endswith("+")


def parse(name: str) -> Point:
    """Read a name."""
    role, kind, verb, n, edge = name.split(":")
    return Point(role=role, kind=kind, verb=verb, n=int(n), edge=Edge(edge))


def worth(passed: list[Point], *, idle: list[Point]) -> list[Point]:
    """
    Choose from what a job passed: of calls that are made with no job about, the first, and those that found something.

    All other calls are counted as they come, and which of them found something is no point of its own.
    """
    restless, always = {point.call for point in idle}, {(point.role, point.verb) for point in idle}
    return [
        point
        for point in dict.fromkeys(passed)
        if (
            (point.n == 1 or (point.is_effective and (point.role, point.verb) not in always))
            if point.call in restless
            else not point.is_effective
        )
    ]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done; a new generation counts anew."""

    generation: int
    mode: Mode
    point: str = ""


class Control:
    """The side of whoever runs the test."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder
        self._generation = time.time_ns()  # none that a process may remember

    def order(self, mode: Mode, point: Point | None = None) -> None:
        """Give an order to every process; what was recorded before is forgotten."""
        self._generation += 1
        _record(self.folder).unlink(missing_ok=True)
        order = Order(generation=self._generation, mode=mode, point=str(point or ""))
        draft = self.folder / "draft"
        draft.write_bytes(msgspec.json.encode(order))
        draft.rename(_order(self.folder))

    def withdraw(self) -> bool:
        """Take the order back; False where somebody has carried it out."""
        try:
            _order(self.folder).unlink()
        except FileNotFoundError:
            return False
        return True

    @property
    def is_carried_out(self) -> bool:
        """Whether the named point was reached."""
        return not _order(self.folder).exists()

    def passed(self) -> list[Point]:
        """What was recorded, in its order."""
        try:
            return [parse(line) for line in _record(self.folder).read_text().splitlines()]
        except FileNotFoundError:
            return []


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call that has begun; `n` is 0 where nobody counts."""

    kind: str
    verb: str
    generation: int = 0
    n: int = 0


class Hook:
    """The side of a process: told of every call, it counts, and does at a point what it was ordered to do."""

    def __init__(self, folder: Path, role: str) -> None:
        self._folder = folder
        self._role = role
        self._generation = 0
        self._counts: Counter[tuple[str, str]] = Counter()

    def before(self, kind: str, verb: str) -> Call:
        """Say that a call is about to be made."""
        order = self._order()
        if order is None:
            return Call(kind=kind, verb=verb)
        call = self._counted(order, kind, verb)
        self._pass(order, call, Edge.BEFORE)
        return call

    def during(self, call: Call) -> None:
        """Say that a call is half done."""
        order = self._order()
        if order is not None and order.generation == call.generation:
            self._pass(order, call, Edge.DURING)

    def after(self, call: Call, *, is_effective: bool) -> None:
        """Say that a call was made, and whether it found something to do."""
        order = self._order()
        if order is None or order.generation != call.generation:
            return
        self._pass(order, call, Edge.AFTER)
        if is_effective:
            self._pass(order, self._counted(order, call.kind, f"{call.verb}+"), Edge.AFTER)

    def _order(self) -> Order | None:
        try:
            order = msgspec.json.decode(_order(self._folder).read_bytes(), type=Order)
        except FileNotFoundError:
            return None
        if order.generation != self._generation:
            self._generation = order.generation
            self._counts.clear()
        return order

    def _counted(self, order: Order, kind: str, verb: str) -> Call:
        self._counts[kind, verb] += 1
        return Call(kind=kind, verb=verb, generation=order.generation, n=self._counts[kind, verb])

    def _pass(self, order: Order, call: Call, edge: Edge) -> None:
        name = str(Point(role=self._role, kind=call.kind, verb=call.verb, n=call.n, edge=edge))
        if order.mode is Mode.RECORD:
            with _record(self._folder).open("a") as record:
                record.write(f"{name}\n")
        elif order.point == name:
            # Once: the process that is started in our place goes on.
            _order(self._folder).unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGKILL if order.mode is Mode.KILL else signal.SIGSTOP)


def _order(folder: Path) -> Path:
    return folder / "order"


def _record(folder: Path) -> Path:
    return folder / "passed"

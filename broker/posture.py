"""The vocabulary of the posture: what each part of a deployment tells of itself, and what a profile makes of it."""

from collections.abc import Collection, Sequence
from enum import StrEnum

import msgspec

from policies.posture import Demand

TYPE = "lethe/posture/v1"
UNTOLD = "not told"


class Part(StrEnum):
    """Whose facts they are."""

    BROKER = "broker"
    WORKER = "worker"
    KEYHOLDER = "keyholder"
    STORES = "stores"


class Verdict(StrEnum):
    """What a fact comes to."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does_not_hold"
    REPORTED = "reported"  # neither good nor bad: nothing of the guarantee hangs on it


KEYHOLDER_IS = "incarnation"
REDIS_KEEPS = "redis_persistence"

MEANINGS: dict[str, str] = {
    Demand.NO_CORE_DUMPS: "the process writes no core file, whatever happens to it",
    Demand.UNDUMPABLE: "other processes of the same user can neither trace it nor read its memory",
    Demand.FREED_HEAP_OVERWRITTEN: "the C library overwrites memory that is freed",
    Demand.NO_SWAP: "no memory of the process can reach a swap device on a disk",
    Demand.GUARDED: "a parent that holds nothing kills the process before its lease ends",
    Demand.LOG_ALLOW_LIST: "every log line passes an allow-list of keys and plain words",
    Demand.SECCOMP: "pictures are opened in children that may make few system calls",
    Demand.LANDLOCK: "the same children can open no file and no port, by a second fence",
    Demand.NO_VIDEO_MEMORY: "models run on the processor: no picture lies in video memory, which nobody overwrites",
    Demand.KEYS_LOCKED: "keys lie in memory that is never swapped and never dumped",
    Demand.KEYS_HIDDEN: "keys lie in memory that not even root can read (memfd_secret)",
    Demand.BLOBS_UNVERSIONED: "the blob store keeps no older version of what was deleted",
    Demand.PRIVATE_LINKS: "stores are reached on this machine or over TLS that is insisted on",
    KEYHOLDER_IS: "what the keyholder calls itself; another one proves that the former's keys are gone",
    REDIS_KEEPS: "what Redis writes to a disk or to others; it holds ids alone, so that nothing hangs on it",
}

_EVERY_PROCESS = (Demand.NO_CORE_DUMPS, Demand.UNDUMPABLE, Demand.FREED_HEAP_OVERWRITTEN, Demand.NO_SWAP)
_OURS = (*_EVERY_PROCESS, Demand.GUARDED, Demand.LOG_ALLOW_LIST)
EXPECTED: dict[Part, tuple[str, ...]] = {
    Part.BROKER: _OURS,
    Part.WORKER: (*_OURS, Demand.SECCOMP, Demand.LANDLOCK, Demand.NO_VIDEO_MEMORY),
    Part.KEYHOLDER: (*_EVERY_PROCESS, Demand.KEYS_LOCKED, Demand.KEYS_HIDDEN, KEYHOLDER_IS),
    Part.STORES: (Demand.BLOBS_UNVERSIONED, Demand.PRIVATE_LINKS, REDIS_KEEPS),
}


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at: what was found, in words, and what that comes to."""

    name: str
    value: str
    verdict: Verdict


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What one part tells of itself."""

    part: Part
    facts: tuple[Fact, ...]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One fact as the page states it, of all parts of a kind together: it holds when it holds for each."""

    part: str
    name: str
    value: str
    verdict: str
    is_demanded: bool
    means: str


class Posture(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed: what is true of a deployment, and whether it is all that the profile demands."""

    type: str
    checked_at: str
    profile: str
    is_met: bool
    facts: tuple[Line, ...]

    @property
    def unmet(self) -> list[Line]:
        """What is demanded and not true."""
        return [line for line in self.facts if line.is_demanded and line.verdict != Verdict.HOLDS]


def fact(name: str, *, is_so: bool, value: str = "") -> Fact:
    """State something that should be so."""
    plain = "yes" if is_so else "no"
    return Fact(name=name, value=value or plain, verdict=Verdict.HOLDS if is_so else Verdict.DOES_NOT_HOLD)


def report(name: str, value: str) -> Fact:
    """State something that is neither good nor bad."""
    return Fact(name=name, value=value, verdict=Verdict.REPORTED)


def judge(told: Sequence[Told], *, demands: Collection[Demand], profile: str, checked_at: str) -> Posture:
    """Put together what all parts told; what a part should have told and did not is not so."""
    lines = [
        _line(part, name, [_of(name, one) for one in told if one.part is part], is_demanded=name in demands)
        for part in Part
        for name in EXPECTED[part]
        if any(one.part is part for one in told)
    ]
    posture = Posture(type=TYPE, checked_at=checked_at, profile=profile, is_met=True, facts=tuple(lines))
    return msgspec.structs.replace(posture, is_met=not posture.unmet)


def _of(name: str, told: Told) -> Fact:
    return next((one for one in told.facts if one.name == name), fact(name, is_so=False, value=UNTOLD))


def _line(part: Part, name: str, facts: Sequence[Fact], *, is_demanded: bool) -> Line:
    # The worst of all: "does_not_hold" sorts before the other two words.
    return Line(
        part=part,
        name=name,
        value=", ".join(sorted({one.value for one in facts})),
        verdict=min(one.verdict for one in facts),
        is_demanded=is_demanded,
        means=MEANINGS[name],
    )

"""
When a provider is left alone, and when it is tried again.

Pure: what is remembered and one more outcome in, what is remembered next out. Times are seconds of one clock that all
processes share.
"""

from enum import StrEnum

import msgspec

from providers.failures import FailureKind

IN_A_ROW = 5
WINDOW_S = 60
AT_LEAST = 10
"""Outcomes in the window before their share says anything."""
OPEN_S = 10.0
LONGEST_OPEN_S = 300.0
TRIPPED_S = 900.0
RATE_LIMITED_S = 5.0
LONGEST_RATE_LIMITED_S = 60.0
CHECKED_S = 45.0
"""A failed check holds until the next one has surely been made."""
CHECKS_IN_A_ROW = 2

ALARMING = frozenset({FailureKind.AUTH, FailureKind.PAYMENT})
"""What does not mend itself: somebody has to."""
NOT_ITS_FAULT = frozenset(
    {
        FailureKind.INVALID_INPUT,
        FailureKind.CONTENT_REJECTED,
        FailureKind.UNSUPPORTED,
        FailureKind.CANCELED,
    }
)
SEEN_BY_CHECKS = frozenset({FailureKind.AUTH, FailureKind.NETWORK, FailureKind.OVERLOADED})
"""What a good answer to a question that costs nothing shows to be over; other faults of orders only an order shows."""

_TALLY_S = 10


class CircuitState(StrEnum):
    """Whether a provider gets work."""

    CLOSED = "closed"  # it does
    OPEN = "open"  # it is left alone for a time
    HALF_OPEN = "half_open"  # the time is over: one attempt finds out


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a circuit stands at one moment; `failures` is how many there were in a row."""

    state: CircuitState = CircuitState.CLOSED
    reason: str = ""
    retry_in_s: float = 0.0
    failures: int = 0


class Tally(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The outcomes of ten seconds."""

    slot: int
    good: int = 0
    bad: int = 0


class Circuit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is remembered of a provider: why and until when it is left alone, and how its last attempts ended."""

    reason: FailureKind | None = None
    until_s: float = 0.0
    is_by_check: bool = False
    openings: int = 0
    in_a_row: int = 0
    failed_checks: int = 0
    tallies: tuple[Tally, ...] = ()

    def state(self, now_s: float) -> CircuitState:
        """Say how it stands; an end further away than any opening comes from a clock that was set back."""
        if self.reason is None:
            return CircuitState.CLOSED
        return CircuitState.OPEN if 0 < self.until_s - now_s <= TRIPPED_S else CircuitState.HALF_OPEN

    def standing(self, now_s: float) -> Standing:
        """Say it in whole."""
        state = self.state(now_s)
        left_s = self.until_s - now_s if state is CircuitState.OPEN else 0.0
        return Standing(state=state, reason=self.reason or "", retry_in_s=left_s, failures=self.in_a_row)

    def after(self, kind: FailureKind | None, *, now_s: float, after_s: float | None = None) -> "Circuit":
        """Return what is remembered once an attempt ended; None is success."""
        if kind is None:
            return self._after_success(now_s)
        if kind in NOT_ITS_FAULT:
            return self
        if kind in ALARMING:
            return self._opened(kind, now_s=now_s, for_s=TRIPPED_S)
        if kind is FailureKind.RATE_LIMITED:
            asked_s = RATE_LIMITED_S if after_s is None else max(after_s, 1.0)
            return self._opened(kind, now_s=now_s, for_s=min(asked_s, LONGEST_RATE_LIMITED_S))
        return self._after_failure(kind, now_s)

    def checked(self, kind: FailureKind | None, *, now_s: float) -> "Circuit":
        """Return what is remembered once the provider was asked whether it would take work."""
        if kind is None:
            is_over = self.reason is not None and (self.is_by_check or self.reason in SEEN_BY_CHECKS)
            return Circuit() if is_over else msgspec.structs.replace(self, failed_checks=0)
        if kind is FailureKind.RATE_LIMITED:
            return self
        if kind in ALARMING:
            return self._opened(kind, now_s=now_s, for_s=TRIPPED_S)
        circuit = msgspec.structs.replace(self, failed_checks=self.failed_checks + 1)
        if self.state(now_s) is CircuitState.CLOSED and circuit.failed_checks < CHECKS_IN_A_ROW:
            return circuit
        return circuit._reopened(kind, now_s=now_s, at_least_s=CHECKED_S, is_by_check=True)

    def _after_success(self, now_s: float) -> "Circuit":
        if self.state(now_s) is CircuitState.HALF_OPEN:
            return Circuit()
        # One that began before the circuit opened says nothing about now.
        return msgspec.structs.replace(self, in_a_row=0, tallies=self._tallied(now_s, good=1))

    def _after_failure(self, kind: FailureKind, now_s: float) -> "Circuit":
        tallies = self._tallied(now_s, bad=1)
        circuit = msgspec.structs.replace(self, in_a_row=self.in_a_row + 1, tallies=tallies)
        state = self.state(now_s)
        is_over = state is CircuitState.CLOSED and (circuit.in_a_row >= IN_A_ROW or _mostly_bad(tallies))
        if state is CircuitState.HALF_OPEN or is_over:
            return circuit._reopened(kind, now_s=now_s)
        return circuit

    def _reopened(
        self, kind: FailureKind, *, now_s: float, at_least_s: float = 0.0, is_by_check: bool = False
    ) -> "Circuit":
        """Leave it alone, twice as long each time that it was found not to have mended."""
        if self.state(now_s) is CircuitState.OPEN:
            return self._opened(kind, now_s=now_s, for_s=at_least_s, is_by_check=is_by_check)
        for_s = max(min(OPEN_S * 2.0**self.openings, LONGEST_OPEN_S), at_least_s)
        opened = self._opened(kind, now_s=now_s, for_s=for_s, is_by_check=is_by_check)
        # Beyond ten the longest time is reached; a number that grows for ever would not be a time any more.
        return msgspec.structs.replace(opened, openings=min(self.openings + 1, 10))

    def _opened(self, kind: FailureKind, *, now_s: float, for_s: float, is_by_check: bool = False) -> "Circuit":
        """Leave it alone, and never for a shorter time than was said before."""
        if self.state(now_s) is CircuitState.OPEN and self.until_s >= now_s + for_s:
            return self
        return msgspec.structs.replace(self, reason=kind, until_s=now_s + for_s, is_by_check=is_by_check)

    def _tallied(self, now_s: float, *, good: int = 0, bad: int = 0) -> tuple[Tally, ...]:
        slot = int(now_s // _TALLY_S)
        kept = [tally for tally in self.tallies if slot - WINDOW_S // _TALLY_S < tally.slot < slot]
        last = next((tally for tally in self.tallies if tally.slot == slot), Tally(slot=slot))
        return (*kept, Tally(slot=slot, good=last.good + good, bad=last.bad + bad))


def _mostly_bad(tallies: tuple[Tally, ...]) -> bool:
    bad = sum(tally.bad for tally in tallies)
    seen = bad + sum(tally.good for tally in tallies)
    return seen >= AT_LEAST and 2 * bad > seen

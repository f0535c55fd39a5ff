"""What a keyholder knows: keys in their slots, when they end, and tombstones of those that were shredded."""

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass

from broker.frames import KEY_BYTES, Answer, KeyholderStats, Role
from broker.secret_memory import SecretPages, wipe

_HEAP_SLACK = 1024


def boottime_s() -> float:
    """Read the clock that goes on while the machine sleeps, so that a suspended machine keeps no key too long."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class _Held:
    slot: int
    put_by: Role
    highest_fence: int = 0


class _Deadlines:
    """Ids and when each ends; the heap may hold entries that are out of date, the dict is right."""

    def __init__(self) -> None:
        self._ends_at_s: dict[bytes, float] = {}
        self._heap: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self._ends_at_s)

    def __contains__(self, key_id: bytes) -> bool:
        return key_id in self._ends_at_s

    def extend(self, key_id: bytes, ends_at_s: float) -> None:
        """Let it end then, or later if that was already said."""
        self._ends_at_s[key_id] = max(ends_at_s, self._ends_at_s.get(key_id, ends_at_s))
        heapq.heappush(self._heap, (self._ends_at_s[key_id], key_id))
        if len(self._heap) > 2 * len(self._ends_at_s) + _HEAP_SLACK:
            self._heap = [(at_s, known) for known, at_s in self._ends_at_s.items()]
            heapq.heapify(self._heap)

    def drop(self, key_id: bytes) -> None:
        """Forget when it ends."""
        self._ends_at_s.pop(key_id, None)

    def pop_ended(self, now_s: float) -> list[bytes]:
        """Take out what has ended."""
        ended: list[bytes] = []
        while self._heap and self._heap[0][0] <= now_s:
            _, key_id = heapq.heappop(self._heap)
            if self._ends_at_s.get(key_id, float("inf")) <= now_s:
                del self._ends_at_s[key_id]
                ended.append(key_id)
        return ended


class KeyTable:
    """
    Every verb of the keyholder, in memory; no verb waits, so that each is atomic.

    A key is written once, ends at its time whoever still wants it, and comes back for nobody.
    """

    def __init__(
        self,
        pages: SecretPages,
        *,
        max_ttl_s: int,
        max_tombstones: int,
        clock: Callable[[], float] = boottime_s,
    ) -> None:
        self._pages = pages
        self._max_ttl_s = max_ttl_s
        self._max_tombstones = max_tombstones
        self._clock = clock
        self._capacity = len(pages.view) // KEY_BYTES
        self._free = list(range(self._capacity))
        self._held: dict[bytes, _Held] = {}
        self._deadlines = _Deadlines()
        self._tombstones = _Deadlines()

    @property
    def is_full(self) -> bool:
        """Whether there is no room for a key, or for remembering that it was shredded."""
        return not self._free or len(self._tombstones) + len(self._held) >= self._max_tombstones

    @property
    def is_empty(self) -> bool:
        """Whether nobody can ask for anything here any more: no key is left, and no tombstone."""
        return not self._held and not len(self._tombstones)

    def put(self, key_id: bytes, key: memoryview, *, ttl_s: int, by: Role = Role.LOCAL) -> Answer:
        """Keep a new key; `full` also when there is no room to remember that it was shredded."""
        self.sweep()
        if key_id in self._tombstones:
            return Answer.GONE
        if key_id in self._held:
            return Answer.EXISTS
        if self.is_full:
            return Answer.FULL
        slot = self._free.pop()
        self._slot(slot)[:] = key
        self._held[key_id] = _Held(slot, by)
        self._deadlines.extend(key_id, self._end_of(ttl_s))
        return Answer.OK

    def open_into(self, key_id: bytes, out: memoryview, *, fence: int, by: Role = Role.LOCAL) -> Answer:
        """
        Copy the key out, unless somebody with a higher fence was here before.

        Brokers open what workers made, and workers what brokers took in: neither role gets back what it gave.
        """
        self.sweep()
        held = self._held.get(key_id)
        if held is None:
            return Answer.GONE
        if by is held.put_by and by is not Role.LOCAL:
            return Answer.DENIED
        if fence < held.highest_fence:
            return Answer.STALE
        held.highest_fence = fence
        out[:] = self._slot(held.slot)
        return Answer.KEY

    def shred(self, key_id: bytes, *, ttl_s: int) -> Answer:
        """
        Overwrite the key, if it is here, and see to it that no later PUT brings it back.

        The answer is `full` when a stranger's id finds no room for its tombstone; keys that are held have theirs
        reserved by put().
        """
        self.sweep()
        was_held = key_id in self._held
        self._overwrite(key_id)
        self._deadlines.drop(key_id)
        is_full = len(self._tombstones) + len(self._held) >= self._max_tombstones
        if is_full and not was_held and key_id not in self._tombstones:
            return Answer.FULL
        self._tombstones.extend(key_id, self._end_of(ttl_s))
        return Answer.OK

    def has(self, key_id: bytes) -> Answer:
        """Say whether the key is here."""
        self.sweep()
        return Answer.YES if key_id in self._held else Answer.NO

    def stats(self) -> KeyholderStats:
        """Count."""
        self.sweep()
        return KeyholderStats(
            held=len(self._held),
            capacity=self._capacity,
            tombstones=len(self._tombstones),
            max_ttl_s=self._max_ttl_s,
            memory=self._pages.memory,
        )

    def sweep(self) -> int:
        """Overwrite the keys whose time has come and count them; every verb does it first, a timer besides."""
        now_s = self._clock()
        ended = self._deadlines.pop_ended(now_s)
        for key_id in ended:
            self._overwrite(key_id)
        self._tombstones.pop_ended(now_s)
        return len(ended)

    def _overwrite(self, key_id: bytes) -> None:
        if held := self._held.pop(key_id, None):
            wipe(self._slot(held.slot))
            self._free.append(held.slot)

    def _slot(self, number: int) -> memoryview:
        return self._pages.view[number * KEY_BYTES : (number + 1) * KEY_BYTES]

    def _end_of(self, ttl_s: int) -> float:
        return self._clock() + min(ttl_s, self._max_ttl_s)

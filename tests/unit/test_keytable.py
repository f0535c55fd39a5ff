import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from broker.frames import KEY_BYTES, Answer, Memory
from broker.keyholder import DEFAULT_CAPACITY, TOMBSTONES_PER_KEY
from broker.keytable import KeyTable, boottime_s
from broker.secret_memory import SecretPages
from broker.settle import TOMBSTONE_S

MAX_TTL_S = 100
FIRST, SECOND, THIRD = (bytes([number]) * 16 for number in (1, 2, 3))
KEY = memoryview(b"k" * KEY_BYTES)
OTHER_KEY = memoryview(b"o" * KEY_BYTES)


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pages() -> Iterator[SecretPages]:
    pages = SecretPages(2 * KEY_BYTES, kinds=[Memory.PLAIN])
    yield pages
    pages.close()


@pytest.fixture
def table(pages: SecretPages, clock: Clock) -> KeyTable:
    return KeyTable(pages, max_ttl_s=MAX_TTL_S, max_tombstones=4, clock=clock)


def opened(table: KeyTable, key_id: bytes, *, fence: int = 1) -> tuple[Answer, bytes]:
    out = bytearray(KEY_BYTES)
    with memoryview(out) as view:
        return table.open_into(key_id, view, fence=fence), bytes(out)


def test_a_key_is_written_once(table: KeyTable) -> None:
    """A second PUT changes nothing, not even with the same key."""
    assert table.put(FIRST, KEY, ttl_s=10) is Answer.OK
    assert table.put(FIRST, OTHER_KEY, ttl_s=10) is Answer.EXISTS
    assert opened(table, FIRST) == (Answer.KEY, bytes(KEY))


def test_a_shredded_key_is_overwritten(table: KeyTable, pages: SecretPages) -> None:
    """SHRED leaves no byte of the key in its slot."""
    table.put(FIRST, KEY, ttl_s=10)
    assert any(pages.view)
    assert table.shred(FIRST, ttl_s=10) is Answer.OK
    assert not any(pages.view)
    assert table.has(FIRST) is Answer.NO
    assert opened(table, FIRST) == (Answer.GONE, bytes(KEY_BYTES))


def test_a_tombstone_outlives_its_key_and_then_ends(table: KeyTable, clock: Clock) -> None:
    """A PUT that comes late gets `gone` until the tombstone's time is over."""
    table.shred(FIRST, ttl_s=10)
    clock.now_s += 9.9
    assert table.put(FIRST, KEY, ttl_s=10) is Answer.GONE
    clock.now_s += 0.2
    assert table.put(FIRST, KEY, ttl_s=10) is Answer.OK


def test_a_tombstone_is_never_shortened(table: KeyTable, clock: Clock) -> None:
    """A repeated SHRED with less time does not let a late PUT in."""
    table.shred(FIRST, ttl_s=50)
    table.shred(FIRST, ttl_s=1)
    clock.now_s += 49
    assert table.put(FIRST, KEY, ttl_s=10) is Answer.GONE


def test_a_key_ends_at_its_time_and_is_overwritten(table: KeyTable, pages: SecretPages, clock: Clock) -> None:
    """Nobody has to ask for a key to end."""
    table.put(FIRST, KEY, ttl_s=10)
    clock.now_s += 10
    assert table.sweep() == 1
    assert not any(pages.view)


def test_opening_a_key_does_not_lengthen_its_life(table: KeyTable, clock: Clock) -> None:
    """Whoever asks, however often, and under whatever fence: the end stays where PUT has set it."""
    table.put(FIRST, KEY, ttl_s=10)
    for fence in range(9):
        clock.now_s += 1
        assert opened(table, FIRST, fence=fence)[0] is Answer.KEY
    clock.now_s += 1
    assert opened(table, FIRST, fence=9)[0] is Answer.GONE


def test_the_clock_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLOCK_BOOTTIME and no other: the monotonic clock stands still in a suspended machine, the wall's can be set."""
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 7.0}.__getitem__)
    assert boottime_s() == 7.0


def test_a_key_past_its_time_is_gone_before_any_sweep(table: KeyTable, clock: Clock) -> None:
    """Between two sweeps a key that has ended is not handed out."""
    table.put(FIRST, KEY, ttl_s=10)
    clock.now_s += 10
    assert opened(table, FIRST)[0] is Answer.GONE


def test_the_keyholder_caps_the_time(table: KeyTable, clock: Clock) -> None:
    """However much time a client asks for, no key stays beyond max_ttl_s."""
    table.put(FIRST, KEY, ttl_s=2**60)
    clock.now_s += MAX_TTL_S
    assert table.has(FIRST) is Answer.NO


@pytest.mark.parametrize(("first_ttl_s", "second_ttl_s"), [(10, 50), (50, 10)])
def test_a_key_ends_at_its_own_time(table: KeyTable, clock: Clock, first_ttl_s: int, second_ttl_s: int) -> None:
    """The end of an earlier key of the same id neither shortens nor lengthens that of a later one."""
    table.put(FIRST, KEY, ttl_s=first_ttl_s)
    table.shred(FIRST, ttl_s=1)
    clock.now_s += 2
    assert table.put(FIRST, OTHER_KEY, ttl_s=second_ttl_s) is Answer.OK
    clock.now_s += second_ttl_s - 1
    assert opened(table, FIRST) == (Answer.KEY, bytes(OTHER_KEY))
    clock.now_s += 1
    assert table.has(FIRST) is Answer.NO


def test_a_lower_fence_is_stale(table: KeyTable) -> None:
    """Who was overtaken gets no key; who holds the highest fence may come again."""
    table.put(FIRST, KEY, ttl_s=10)
    assert opened(table, FIRST, fence=5)[0] is Answer.KEY
    assert opened(table, FIRST, fence=4) == (Answer.STALE, bytes(KEY_BYTES))
    assert opened(table, FIRST, fence=5)[0] is Answer.KEY
    assert opened(table, FIRST, fence=6)[0] is Answer.KEY
    assert opened(table, FIRST, fence=5)[0] is Answer.STALE


def test_full_until_a_key_leaves(table: KeyTable) -> None:
    """A full table takes no key and loses none; a freed slot is used again."""
    assert [table.put(key_id, KEY, ttl_s=10) for key_id in (FIRST, SECOND, THIRD)] == [
        Answer.OK,
        Answer.OK,
        Answer.FULL,
    ]
    table.shred(FIRST, ttl_s=10)
    assert table.put(THIRD, OTHER_KEY, ttl_s=10) is Answer.OK
    assert opened(table, SECOND) == (Answer.KEY, bytes(KEY))


def test_every_key_has_its_tombstone_reserved(table: KeyTable) -> None:
    """Strangers' tombstones can fill the table, but a key that is held can always be shredded for good."""
    table.put(FIRST, KEY, ttl_s=10)
    strangers = [bytes([number]) * 16 for number in range(10, 14)]
    assert [table.shred(key_id, ttl_s=10) for key_id in strangers] == [Answer.OK] * 3 + [Answer.FULL]
    assert table.put(SECOND, KEY, ttl_s=10) is Answer.FULL
    assert table.shred(FIRST, ttl_s=10) is Answer.OK
    assert table.put(FIRST, KEY, ttl_s=10) is Answer.GONE
    assert table.shred(FIRST, ttl_s=10) is Answer.OK


def test_many_keys_come_and_go(table: KeyTable, clock: Clock) -> None:
    """Churn uses up neither slots nor room for tombstones."""
    for number in range(5000):
        key_id = number.to_bytes(16)
        assert table.put(key_id, KEY, ttl_s=50) is Answer.OK
        table.shred(key_id, ttl_s=1)
        clock.now_s += 1
    stats = table.stats()
    assert (stats.held, stats.tombstones, stats.capacity) == (0, 0, 2)


def test_a_busy_server_has_room_for_its_tombstones() -> None:
    """Three hundred jobs a second, each with a key for its upload and one for its output, never fill the keyholder."""
    assert 300 * 2 * TOMBSTONE_S <= TOMBSTONES_PER_KEY * DEFAULT_CAPACITY

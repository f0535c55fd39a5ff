"""What a profile makes of what the parts of a deployment tell."""

import re
from pathlib import Path

import pytest

from broker.frames import Hardening
from broker.hardening import disks_in
from broker.itself import HARDENED, hardening_facts
from broker.posture import EXPECTED, MEANINGS, Fact, Part, Posture, Told, Verdict, fact, judge, report
from broker.watch import is_private, redis_words
from policies.posture import Demand
from policies.registry import read_profile
from policies.toml_file import ConfigInvalid, TomlFile
from tests.profiles import MINIMAL

DOCS = Path(__file__).parents[2] / "docs"


def judged(*told: Told, demands: tuple[Demand, ...] = ()) -> Posture:
    return judge(told, demands=demands, profile="p", checked_at="2026-01-01T00:00:00Z")


def whole(part: Part, **changed: bool) -> Told:
    """A part that tells all that is expected of it."""
    return Told(part=part, facts=tuple(fact(name, is_so=changed.get(name, True)) for name in EXPECTED[part]))


def test_what_is_demanded_and_true_is_met() -> None:
    """A posture is met when every demanded fact holds for every process."""
    posture = judged(whole(Part.BROKER), whole(Part.WORKER), demands=(Demand.NO_SWAP, Demand.SECCOMP))
    assert posture.is_met
    assert {line.name for line in posture.facts if line.is_demanded} == {"no_swap", "seccomp"}


def test_one_of_many_is_enough_to_break_it() -> None:
    """A fact holds for a kind of process only when it holds for each; the page shows both values."""
    workers = whole(Part.WORKER), whole(Part.WORKER, no_swap=False)
    posture = judged(whole(Part.BROKER), *workers, demands=(Demand.NO_SWAP,))
    assert [(line.part, line.name, line.value) for line in posture.unmet] == [("worker", "no_swap", "no, yes")]
    assert not posture.is_met


def test_what_is_not_demanded_breaks_nothing() -> None:
    """It is stated as it is, and that is all."""
    posture = judged(whole(Part.BROKER, no_swap=False))
    assert posture.is_met
    assert [line.verdict for line in posture.facts if line.name == "no_swap"] == ["does_not_hold"]


def test_silence_is_no() -> None:
    """A part that does not tell a fact that is expected of it counts as one for which it is not so."""
    posture = judged(Told(part=Part.KEYHOLDER, facts=()), demands=(Demand.KEYS_LOCKED,))
    assert [(line.name, line.value) for line in posture.unmet] == [("keys_locked", "not told")]


def test_reports_are_never_demanded() -> None:
    """What Redis keeps and who the keyholder is are no demand of any profile."""
    told = Told(part=Part.STORES, facts=(report("redis_persistence", "snapshots"),))
    lines = {line.name: line for line in judged(told, demands=tuple(Demand)).facts}
    assert (lines["redis_persistence"].verdict, lines["redis_persistence"].is_demanded) == (Verdict.REPORTED, False)
    with pytest.raises(ConfigInvalid, match="redis_persistence"):
        read_profile(TomlFile(MINIMAL.replace('"undumpable"', '"redis_persistence"'), name="p.toml"))


def test_a_profile_says_what_it_demands() -> None:
    """Whoever leaves the table out is told so, rather than served less."""
    with pytest.raises(ConfigInvalid, match="posture"):
        read_profile(TomlFile(MINIMAL.partition("[posture]")[0], name="p.toml"))


def test_every_fact_has_its_words_and_is_documented() -> None:
    """docs/privacy.md lists every fact, in the words of the page, and no other."""
    assert set(MEANINGS) == {name for names in EXPECTED.values() for name in names} >= set(Demand)
    rows = re.findall(r"^\| `([a-z_]+)` \| [a-z, ]+ \| (.+) \|$", (DOCS / "privacy.md").read_text(), re.MULTILINE)
    assert dict(rows) == MEANINGS


def test_each_flag_of_a_process_is_one_fact() -> None:
    """No two are mixed up on their way."""
    for flag, name in HARDENED.items():
        holding = [one.name for one in hardening_facts(flag) if one.verdict is Verdict.HOLDS]
        assert holding == [name]
    assert hardening_facts(Hardening.NONE)[0] == Fact(name="no_core_dumps", value="no", verdict=Verdict.DOES_NOT_HOLD)


def test_swap_in_memory_is_no_swap_on_a_disk() -> None:
    """zram is memory; a partition or a file is not."""
    head = "Filename\tType\tSize\tUsed\tPriority\n"
    assert disks_in(head + "/dev/zram0 partition 1 0 100\n") == []
    assert disks_in(head + "/swapfile file 1 0 -2\n/dev/zram0 partition 1 0 100\n") == ["/swapfile"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///var/lib/blobs", True),
        ("unix:///run/redis.sock", True),
        ("postgresql://u@/db?host=/run/postgres", True),
        ("postgresql://u:p@localhost/db", True),
        ("postgresql://u:p@db/db", False),
        ("postgresql://u:p@db/db?sslmode=prefer", False),
        ("postgresql://u:p@db/db?sslmode=verify-full", True),
        ("postgresql://u:p@/db?host=/run/a&host=db", False),
        ("redis://10.0.0.1:6379", False),
        ("rediss://10.0.0.1:6379", True),
        ("redis://127.0.0.1:6379", True),
        ("s3://bucket", True),
        ("http://minio:9000/bucket", False),
    ],
)
def test_a_link_is_private_when_nothing_else_is_accepted(url: str, *, expected: bool) -> None:
    """This machine, or TLS that the URL insists on."""
    assert is_private(url) is expected


@pytest.mark.parametrize(
    ("told", "saves", "words"),
    [
        ({"aof_enabled": 0, "connected_slaves": 0}, "", "nothing"),
        ({"aof_enabled": 1, "connected_slaves": 2}, "3600 1", "snapshots, append-only file, 2 replicas"),
        ({}, None, "perhaps snapshots"),
    ],
)
def test_what_redis_keeps_is_said_in_words(told: dict[str, object], saves: str | None, words: str) -> None:
    """One that does not let itself be asked may keep snapshots."""
    assert redis_words(told, saves) == words

"""What the doctor concludes from what it reads; the reading itself is shown on real stores elsewhere."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from broker.cli import main
from broker.doctor import machine, stores
from broker.doctor.configuration import settings_of
from broker.doctor.findings import Finding, Level
from broker.store.blobs import versioned
from broker.store.files import migrations

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
SWAPS = "Filename\tType\tSize\tUsed\tPriority\n"
WHOLE = {
    "LETHE_POSTGRES_DSN": "x",
    "LETHE_REDIS_URL": "x",
    "LETHE_BLOBS_URL": "x",
    "LETHE_KEYHOLDER_SOCKET": "x",
    "LETHE_RECEIPT_KEY_FILE": "x",
}


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (machine.python((3, 10)), Level.PROBLEM),
        (machine.python((3, 11)), Level.OK),
        (machine.python((3, 14)), Level.OK),
        (machine.python((3, 15)), Level.PROBLEM),
        (machine.c_library("", ""), Level.PROBLEM),
        (machine.c_library("glibc", "2.27"), Level.PROBLEM),
        (machine.c_library("glibc", "2.28"), Level.OK),
        (machine.seccomp("Name:\tx\n"), Level.PROBLEM),
        (machine.seccomp("Name:\tx\nSeccomp:\t0\n"), Level.OK),
        (machine.lockable_memory(64 * 1024), Level.WARNING),
        (machine.lockable_memory(8 * 1024 * 1024), Level.OK),
        (machine.lockable_memory(-1), Level.OK),
        (machine.swap(SWAPS), Level.OK),
        (machine.swap(SWAPS + "/dev/sda2 partition 1 0 -2\n"), Level.WARNING),
        (machine.swap(SWAPS + "/dev/zram0 partition 1 0 100\n"), Level.OK),
        (machine.core_dumps("core"), Level.OK),
        (machine.core_dumps("|/usr/lib/systemd/systemd-coredump %P"), Level.NOTE),
        (machine.clock(datetime(1970, 1, 2, tzinfo=UTC)), Level.PROBLEM),
        (machine.clock(datetime(2026, 1, 1, tzinfo=UTC)), Level.OK),
        (stores.postgres_version(14), Level.PROBLEM),
        (stores.postgres_version(15), Level.OK),
        (stores.redis_version("6.0.16"), Level.PROBLEM),
        (stores.redis_version("6.2.14"), Level.OK),
        (stores.redis_version("7.4.0"), Level.OK),
        (stores.eviction("noeviction", limit_bytes=1), Level.OK),
        (stores.eviction("allkeys-lru", limit_bytes=0), Level.OK),
        (stores.eviction("allkeys-lru", limit_bytes=1), Level.WARNING),
        (stores.schema({9_999, *(number for number, _ in migrations())}), Level.WARNING),
        (stores.schema(set()), Level.PROBLEM),
        (stores.skew(timedelta(seconds=-4), whose="x"), Level.OK),
        (stores.skew(timedelta(seconds=-60), whose="x"), Level.WARNING),
        (stores.versions(False, is_directory=True), Level.OK),
        (stores.versions(versioned("s3", None)), Level.OK),
        (stores.versions(versioned("s3", "null")), Level.OK),
        (stores.versions(versioned("s3", "3HL4kqtJlcpXroDTDmJ")), Level.PROBLEM),
        (stores.versions(versioned("az", "2026-01-01T00:00:00.0000000Z")), Level.PROBLEM),
        (stores.versions(versioned("gs", "1700000000000000")), Level.NOTE),
    ],
)
def test_conclusions(finding: Finding, level: Level) -> None:
    """Each reading gets its level, and whatever is to be mended says how."""
    assert finding.level is level, finding
    assert bool(finding.mend) or level in {Level.OK, Level.NOTE}


def test_no_setting_at_all_is_right_for_one_machine() -> None:
    """`lethe up` makes its own settings; nothing is called missing."""
    settings, findings = settings_of({"PATH": "/bin", "LETHE_DATA_DIR": "x", "LETHE_TOKEN": "x"})
    assert settings is None
    assert [finding.level for finding in findings] == [Level.NOTE]


def test_a_missing_setting_is_named() -> None:
    """Some settings without the others: the first that is missing is named."""
    settings, findings = settings_of({"LETHE_REDIS_URL": "x"})
    assert settings is None
    assert findings[0].level is Level.PROBLEM
    assert "LETHE_" in findings[0].what


def test_a_misspelt_setting_is_named_with_the_right_one() -> None:
    """A variable that nobody reads is probably meant to be another."""
    settings, findings = settings_of({**WHOLE, "LETHE_LEASE": "3"})
    assert settings is not None
    assert (findings[0].level, findings[0].mend) == (Level.WARNING, "did you mean LETHE_LEASE_S?")


def test_a_variable_that_a_command_reads_is_no_misspelt_setting() -> None:
    """What an option falls back on is known to the doctor, and stands in docs/settings.md."""
    names = set(variables_of(main))
    assert {"LETHE_URL", "LETHE_TOKEN", "LETHE_OPERATOR_URL"} < names
    settings, findings = settings_of({**dict.fromkeys(names, "x"), **WHOLE})
    assert settings is not None
    assert [finding.level for finding in findings] == [Level.OK]
    page = PAGE.read_text()
    assert [name for name in sorted(names) if f"| `{name}` |" not in page] == []


def variables_of(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        match parameter.envvar:
            case str(name):
                yield name
            case None:
                pass
            case several:
                yield from several
    if isinstance(command, click.Group):
        for part in command.commands.values():
            yield from variables_of(part)


def test_no_finding_shows_a_value() -> None:
    """DSNs and tokens hold secrets: a finding names variables alone."""
    _, findings = settings_of({**WHOLE, "LETHE_POSTGRES_DSN": "secret", "LETHE_SLOTS": "secret", "LETHE_X": "secret"})
    assert findings
    assert "secret" not in repr(findings)

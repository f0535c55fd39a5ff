"""Profiles of tests: the minimal one with other values, with further tables, or with other words about outputs."""

import re
from pathlib import Path

import msgspec

from broker.settings import Settings
from policies.registry import PROFILES

MINIMAL = (PROFILES / "minimal.toml").read_text()
GALLERY = 'outputs = "until_deleted"\nsealed = true'
DELIVERED = 'outputs = "until_delivered"\noutputs_for_s = 3_600\ngrace_s = 60'


def profile_text(*tables: str, **changed: str) -> str:
    """The profile minimal with other values, and with further tables."""
    text = MINIMAL
    for name, value in changed.items():
        before, found, after = text.partition(f"\n{name} = ")
        assert found, name
        text = f"{before}{found}{value}\n{after.partition(chr(10))[2]}"
    return "\n".join([text, *tables])


def profile_file(folder: Path, *tables: str, **changed: str) -> str:
    """Write such a profile; by what is returned a setting names it."""
    return _written(folder, profile_text(*tables, **changed))


def open_profile(folder: Path, exposure: str = "logged", **changed: str) -> str:
    """Write one that lets pictures go to providers, for 40 days unless `changed` says for how long."""
    changed = {"exposure": f'"{exposure}"', "max_provider_retention_s": "3_456_000", **changed}
    return profile_file(folder, **changed)


def settings_under(settings: Settings, folder: Path, *tables: str, **changed: str) -> Settings:
    """Settings under a profile with these tables and values."""
    return msgspec.structs.replace(settings, profile=profile_file(folder, *tables, **changed))


def with_profile(settings: Settings, folder: Path, retention: str) -> Settings:
    """Settings under a profile of which outputs are kept as these lines say."""
    text, count = re.subn(r'outputs = "for".*\noutputs_for_s = .*\n', f"{retention}\n", MINIMAL)
    assert count == 1
    return msgspec.structs.replace(settings, profile=_written(folder, text))


def _written(folder: Path, text: str) -> str:
    path = folder / "profile.toml"
    path.write_text(text)
    return str(path)

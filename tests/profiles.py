"""Profiles of tests: the minimal one with another table of retention."""

import re
from pathlib import Path

import msgspec

from broker.settings import Settings
from policies.registry import PROFILES

MINIMAL = (PROFILES / "minimal.toml").read_text()
GALLERY = 'outputs = "until_deleted"\nsealed = true'
DELIVERED = 'outputs = "until_delivered"\noutputs_for_s = 3_600\ngrace_s = 60'


def with_profile(settings: Settings, folder: Path, retention: str) -> Settings:
    """Settings under a profile of which outputs are kept as these lines say."""
    path = folder / "profile.toml"
    path.write_text(re.sub(r'outputs = "for".*\noutputs_for_s = .*\n', f"{retention}\n", MINIMAL))
    return msgspec.structs.replace(settings, profile=str(path))

"""Examines the key under which subjects of sign-ins are hashed."""

from collections.abc import Iterator
from pathlib import Path

from broker.doctor.findings import Finding
from broker.doctor.key_files import key_file
from broker.settings import Settings
from broker.subjects import load_subject_key


def links(settings: Settings) -> Iterator[Finding]:
    """Look at the file where one is named; without, nobody signs in on a second device."""
    if settings.subject_key_file:
        mend = "make one: openssl rand -hex 32 (it has to be the same for every broker, and for good)"
        path = Path(settings.subject_key_file)
        yield key_file(path, load_subject_key, what="subjects of sign-ins are hashed under a key", mend=mend)

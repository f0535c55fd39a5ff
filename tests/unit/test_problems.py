"""Codes that clients see: each is unique, documented, and stays what it is."""

import re
from pathlib import Path

import msgspec

from broker import account_errors, consent_errors, device_errors, errors, form_errors, notify_errors, rights_errors
from broker.api.failures import FAILURES
from broker.api.problems import FRAMEWORK_CODES
from broker.settings import Settings
from policies.base import RefusalCode
from workers.outcomes import CODES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ROW = re.compile(r"^\| `([a-z_]+)` \| ([0-9]{3}) \| .+ \|$", re.MULTILINE)
FAILURE = re.compile(r"^\| `([a-z_]+)` \| ([A-Z].+) \|$", re.MULTILINE)
WRITTEN = re.compile(r'(?:code=|failed\(|FAILED, |EXPIRED, |return |else )"([a-z]+(?:_[a-z]+)+)"')
SETTING = re.compile(r"^\| `(LETHE_[A-Z_]+)` \| (.*?) \| .+ \|$", re.MULTILINE)


def error_classes() -> list[type[errors.BrokerError]]:
    modules = (errors, form_errors, account_errors, consent_errors, device_errors, notify_errors, rights_errors)
    found = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return [value for value in found if issubclass(value, errors.BrokerError)]


def test_every_error_is_documented() -> None:
    """docs/errors.md names every code with its status, and no other."""
    known = {(error.code, str(int(error.status))) for error in error_classes()}
    known |= {(code, str(status)) for status, (code, _) in FRAMEWORK_CODES.items()}
    assert set(ROW.findall((DOCS / "errors.md").read_text())) == known


def test_a_code_means_one_thing() -> None:
    """No two classes share a code."""
    codes = [error.code for error in error_classes()]
    assert len(set(codes)) == len(codes)


def test_every_failure_is_documented() -> None:
    """docs/errors.md has the same sentences for failed jobs as the API."""
    assert dict(FAILURE.findall((DOCS / "errors.md").read_text())) == FAILURES


def test_every_failure_of_a_provider_or_policy_has_a_sentence() -> None:
    """What providers and policies may make of a running job can be explained to a user."""
    assert set(CODES.values()) | set(RefusalCode) <= set(FAILURES)


def test_every_code_that_is_written_has_a_sentence() -> None:
    """The codes that broker and workers give to jobs that end without a result are in the table."""
    sources = [ROOT / "broker" / "rescue.py", *(ROOT / "workers").glob("*.py")]
    written = {code for source in sources for code in WRITTEN.findall(source.read_text())}
    assert {"key_lost", "not_started_in_time", "not_finished_in_time"} <= written
    assert written | {"crashed_worker"} <= set(FAILURES)


def test_every_setting_is_documented() -> None:
    """docs/settings.md names every variable with its default, and no other."""
    shown: dict[str, str] = {}
    for field in msgspec.structs.fields(Settings):
        words = {"": "empty", None: "not set"}
        default = "required" if field.required else words.get(field.default, f"`{field.default}`")
        shown[field.encode_name] = default
    assert dict(SETTING.findall((DOCS / "settings.md").read_text())) == shown

"""Examines what signs notifications: whether the files that settings name can be read, and by nobody else."""

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from broker.doctor.findings import Finding, note, ok, problem
from broker.notify.apns import load_apns_key
from broker.notify.fcm import load_account
from broker.notify.webhook_keys import load_webhook_keys
from broker.settings import Settings, SettingsInvalid


def notifications(settings: Settings) -> Iterator[Finding]:
    """Look at each file; without any, nobody is told that a job has ended."""
    files: dict[str, tuple[str, Callable[[Path], object], str]] = {
        "webhooks are signed": (settings.webhook_keys_file, load_webhook_keys, "`lethe webhook-key` makes keys"),
        "push goes through Firebase": (
            settings.fcm_account_file,
            load_account,
            "take the key of a service account from the Firebase console",
        ),
        "push goes through Apple": (
            settings.apns_key_file,
            lambda path: load_apns_key(path, settings.apns_app_id),
            "take the key from Apple's developer account, and keep the file's name",
        ),
    }
    named = {what: found for what, found in files.items() if found[0]}
    for what, (path, load, mend) in named.items():
        yield _file(Path(path), load, what=what, mend=mend)
    if not named:
        yield note(
            "nobody is told when a job ends: no LETHE_WEBHOOK_KEYS_FILE, LETHE_FCM_ACCOUNT_FILE or LETHE_APNS_KEY_FILE"
        )


def _file(path: Path, load: Callable[[Path], object], *, what: str, mend: str) -> Finding:
    try:
        load(path)
    except SettingsInvalid as exc:
        return problem(f"{exc}: {path}", f"{mend}; brokers alone read it")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return problem(f"{path} can be read by others", f"chmod 600 {path}; others may have signed with it")
    return ok(what)

"""Examines what signs notifications: whether the files that settings name can be read, and by nobody else."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from broker.doctor.findings import Finding, note
from broker.doctor.key_files import key_file
from broker.google_account import load_account
from broker.notify.apns import load_apns_key
from broker.notify.webhook_keys import load_webhook_keys
from broker.settings import Settings


def notifications(settings: Settings) -> Iterator[Finding]:
    """Look at each file; without any, nobody is told that a job has ended."""
    files: dict[str, tuple[str, Callable[[Path], object], str]] = {
        "webhooks are signed": (settings.webhook_keys_file, load_webhook_keys, "`lethe webhook-key` makes keys"),
        "push goes through Firebase": (
            settings.fcm_account_file,
            partial(load_account, setting="LETHE_FCM_ACCOUNT_FILE"),
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
        yield key_file(Path(path), load, what=what, mend=mend)
    if not named:
        yield note(
            "nobody is told when a job ends: no LETHE_WEBHOOK_KEYS_FILE, LETHE_FCM_ACCOUNT_FILE or LETHE_APNS_KEY_FILE"
        )

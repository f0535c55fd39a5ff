"""Examines by what receipts of shops are checked, and whether any product is worth something."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from broker.doctor.findings import Finding, note, ok, problem
from broker.doctor.key_files import key_file
from broker.google_account import load_account
from broker.settings import Settings, SettingsInvalid
from broker.shops.app_store import load_root
from policies.registry import load_profile
from policies.toml_file import ConfigInvalid


def shops(settings: Settings) -> Iterator[Finding]:
    """Look at each file that is named; without any, credits are granted by the app's own server alone."""
    if settings.app_store_root_file:
        yield _root(Path(settings.app_store_root_file))
    if settings.play_account_file:
        load = partial(load_account, setting="LETHE_PLAY_ACCOUNT_FILE")
        mend = "take the key of a service account that the Play console lets in"
        yield key_file(Path(settings.play_account_file), load, what="receipts of Google Play are checked", mend=mend)
    if (settings.app_store_root_file or settings.play_account_file) and not _has_products(settings.profile):
        yield note(f"the profile {settings.profile} names no [credits] products: every receipt is refused")


def _root(path: Path) -> Finding:
    try:
        load_root(path)
    except SettingsInvalid as exc:
        return problem(f"{exc}: {path}", "take Apple Root CA - G3 from Apple's page of certificate authorities")
    return ok("receipts of the App Store are checked")


def _has_products(profile: str) -> bool:
    try:
        return bool(load_profile(profile).credits.products)
    except ConfigInvalid:
        return True  # said elsewhere

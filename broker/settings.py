"""What differs per machine: `LETHE_*` variables as one frozen struct; the only reader of the environment."""

import os
from pathlib import Path
from typing import Annotated

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]

MODEL_SLOTS = 4
RELAY_SLOTS = 2000


class SettingsInvalid(Exception):
    """A LETHE_* variable is missing or cannot be read."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename=lambda name: f"LETHE_{name.upper()}"):
    """Every setting, with its unit in its name; docs/settings.md describes them."""

    postgres_dsn: str
    redis_url: str
    blobs_url: str
    keyholder_socket: str
    keyholder_ca_file: str = ""
    keyholder_certificate_file: str = ""
    keyholder_key_file: str = ""
    receipt_key_file: str
    receipt_name: str = "lethe.invalid/receipts"
    profile: str = "minimal"
    config_file: str = ""
    data_dir: str = ".lethe/data"
    listen: str = "127.0.0.1:8080"
    operator_listen: str = "127.0.0.1:8081"
    operator_keys_file: str = ""
    subject_key_file: str = ""
    webhook_keys_file: str = ""
    fcm_account_file: str = ""
    fcm_url: str = "https://fcm.googleapis.com"
    apns_key_file: str = ""
    apns_app_id: str = ""
    app_store_root_file: str = ""
    app_store_bundle_id: str = ""
    play_account_file: str = ""
    play_package: str = ""
    trusted_proxies: str = ""
    lease_s: Annotated[float, msgspec.Meta(ge=3)] = 10.0
    public_url: str = ""
    slots: Count | None = None
    pictures_at_once: Count = 4
    max_crashes: Count = 3
    upload_idle_s: Positive = 30.0
    upload_within_s: Positive = 600.0
    rescue_every_s: Positive = 0.5
    postgres_connections: Count = 16

    def __repr__(self) -> str:
        """Name the settings, never their values."""
        return f"Settings({', '.join(self.__struct_fields__)})"

    def slots_of(self, *, is_relay: bool) -> int:
        """Say how many jobs a worker runs at once: waiting for a provider costs little, a model costs a machine."""
        return self.slots or (RELAY_SLOTS if is_relay else MODEL_SLOTS)

    @property
    def config_path(self) -> Path | None:
        """Where lethe.toml lies; None for the one that ships with Lethe."""
        return Path(self.config_file) if self.config_file else None

    @property
    def models_dir(self) -> Path:
        """Where the weights lie."""
        return Path(self.data_dir) / "models"


def load_settings(environ: dict[str, str] | None = None) -> Settings:
    """Read and check all settings at once; raise SettingsInvalid naming the variable."""
    source = dict(os.environ) if environ is None else environ
    known = {field.encode_name for field in msgspec.structs.fields(Settings)}
    try:
        return msgspec.convert({k: v for k, v in source.items() if k in known}, Settings, strict=False)
    except msgspec.ValidationError as exc:
        raise SettingsInvalid(f"{exc}; docs/settings.md lists the variables, `lethe doctor` checks them") from exc


def resolve_secret(reference: str) -> str | None:
    """Return what `env:NAME` or `file:/path` refers to; None where it is not there or empty."""
    kind, _, where = reference.partition(":")
    if kind == "env":
        return os.environ.get(where) or None
    try:
        return Path(where).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def inherited_environment() -> dict[str, str]:
    """Return the environment for a child process of ours."""
    return dict(os.environ)

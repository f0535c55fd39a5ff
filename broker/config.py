"""Reads lethe.toml: checked whole, or refused with file, line and reason."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import cast
from urllib.parse import SplitResult, urlsplit

import msgspec

from broker.operations import OPERATIONS, Operation
from broker.routes import (
    INHOUSE_MODELS,
    MAX_WEIGHT,
    NAME,
    After,
    Config,
    InhouseProvider,
    OutsideProvider,
    Place,
    Provider,
    Route,
    is_loopback,
)
from policies.toml_file import TomlFile, TomlPath
from providers.base import Exposure, Model, Terms
from providers.registry import ADAPTERS
from providers.templates import check_template, names_in

DEFAULT_FILE = Path(__file__).with_name("lethe.toml")

_SECRET = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/.+")
# Those that a downloader takes: exact names, and "*." only before at least two labels.
_HOST = re.compile(r"(\*\.(?=[^.]+\.))?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_URL = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]+)?(/[!-~]*)?", re.IGNORECASE)
_CHOICES = {"exposure": Exposure, "on_reject": After, "on_uncertain": After}


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    provider: dict[str, dict[str, object]]
    route: tuple[dict[str, object], ...]


def load_config(path: Path | None = None) -> Config:
    """Read and check a configuration, by default the one that ships with Lethe; raise ConfigInvalid."""
    return read_config(TomlFile.read(path or DEFAULT_FILE))


def read_config(file: TomlFile) -> Config:
    """Check a configuration whole; raise ConfigInvalid with file, line and reason."""
    parts = file.decode(_File)
    providers = {name: _provider(file, name, table) for name, table in parts.provider.items()}
    routes: dict[str, Route] = {}
    for n, table in enumerate(parts.route):
        route = _route(file, n, table, providers)
        if route.operation in routes:
            raise file.invalid(("route", n, "operation"), f"{route.operation} has a route already")
        routes[route.operation] = route
    places = {name: _place(file, name, table) for name, table in parts.provider.items()}
    places |= {f"route {route['operation']}": _route_place(file, n) for n, route in enumerate(parts.route)}
    return Config(providers=providers, routes=routes, places=places)


def _route_place(file: TomlFile, n: int) -> Place:
    return Place(file=file.name, line=file.line_of(("route", n)), lines={})


def _place(file: TomlFile, name: str, table: dict[str, object]) -> Place:
    at: TomlPath = ("provider", name)
    fields = {field: file.line_of((*at, field)) for field in table}
    operations = {f"operation.{o}": file.line_of((*at, "operation", o)) for o in _table(table.get("operation"))}
    return Place(file=file.name, line=file.line_of(at), lines=fields | operations)


def _provider(file: TomlFile, name: str, table: dict[str, object]) -> Provider:
    at: TomlPath = ("provider", name)
    if not re.fullmatch(NAME, name):
        raise file.invalid(at, "a name is a lower-case letter and up to 31 letters, digits and underscores")
    _check_choices(file, at, table)
    adapter = table.get("adapter")
    if adapter == "inhouse":
        return _inhouse(file, at)
    if not isinstance(adapter, str) or adapter not in ADAPTERS:
        reason = "no adapter has this name" if "adapter" in table else "is missing"
        raise file.invalid((*at, "adapter"), f"{reason}; there is {_listed(['inhouse', *ADAPTERS])}")
    return _outside(file, at, table, ADAPTERS[adapter].terms)


def _check_choices(file: TomlFile, at: TomlPath, table: dict[str, object]) -> None:
    for field, choices in _CHOICES.items():
        if field in table and table[field] not in list(choices):
            raise file.invalid((*at, field), f"has to be one of {_listed(choices)}")


def _inhouse(file: TomlFile, at: TomlPath) -> InhouseProvider:
    provider = file.decode(InhouseProvider, at=at)
    if not provider.models:
        raise file.invalid((*at, "model"), f"no in-house model has this name; there is {_listed(INHOUSE_MODELS)}")
    return provider


def _outside(file: TomlFile, at: TomlPath, table: dict[str, object], terms: Terms) -> OutsideProvider:
    for operation in _table(table.get("operation")):
        # Each by itself: what msgspec says of a whole table does not name the operation.
        _check_model(file, (*at, "operation", operation), operation, terms)
    given = file.decode(OutsideProvider, at=at)
    provider = msgspec.structs.replace(
        given,
        base_url=(given.base_url or terms.base_url).rstrip("/"),
        retention_s=terms.retention_s if given.retention_s < 0 else given.retention_s,
    )
    for check in (_floor_fault, _url_fault, _secret_fault, _hosts_fault):
        field, reason = check(provider, terms)
        if reason:
            raise file.invalid((*at, field), reason)
    return provider


Fault = tuple[str, str]
"""A field and what is wrong with it; the reason is empty where nothing is."""


def _floor_fault(provider: OutsideProvider, terms: Terms) -> Fault:
    if provider.contract.strip():
        return "", ""
    remedy = "; name the agreement that says otherwise in `contract`"
    if provider.exposure.rank < terms.exposure.rank:
        return "exposure", f"{provider.adapter} documents {terms.exposure}, which is wider{remedy}"
    if provider.retention_s < terms.retention_s:
        return "retention_s", f"{provider.adapter} documents {terms.retention_s} s, which is longer{remedy}"
    return "", ""


def _url_fault(provider: OutsideProvider, terms: Terms) -> Fault:
    del terms
    if not provider.base_url:
        return "base_url", "is missing; this adapter has no usual place"
    url = _split(provider.base_url)
    if url is None or not url.hostname:
        return "base_url", "has to be an http or https URL without user, query and fragment"
    if url.scheme == "http" and provider.exposure is not Exposure.LOCAL and not is_loopback(url.hostname):
        return "base_url", 'a provider outside needs https; http is for this machine, or for exposure = "local"'
    return "", ""


def _split(base_url: str) -> SplitResult | None:
    """Take a URL apart; None where it is not one that requests can be made to."""
    if not _URL.fullmatch(base_url):
        return None
    try:
        url = urlsplit(base_url)
        return None if url.port == 0 or url.query or url.fragment else url
    except ValueError:  # no port, or no address, has this number
        return None


def _secret_fault(provider: OutsideProvider, terms: Terms) -> Fault:
    if provider.secret is None:
        reason = f"is missing; {provider.adapter} needs one, as env:NAME or file:/path"
        return ("secret", reason) if terms.needs_secret else ("", "")
    if not _SECRET.fullmatch(provider.secret):
        return "secret", "has to be env:NAME or file:/path; a secret never stands in this file"
    return "", ""


def _hosts_fault(provider: OutsideProvider, terms: Terms) -> Fault:
    if terms.gives_urls and not provider.hosts:
        return "hosts", "is missing; outputs come as URLs, so name the hosts that they may point to"
    wrong = next((host for host in provider.hosts if not _HOST.fullmatch(host)), None)
    return ("", "") if wrong is None else ("hosts", f"{wrong!r} is no host; write example.org, or *.example.org")


def _check_model(file: TomlFile, at: TomlPath, name: str, terms: Terms) -> None:
    if name not in OPERATIONS:
        raise file.invalid(at, f"no operation has this name; there is {_listed(OPERATIONS)}")
    if name not in terms.operations:
        raise file.invalid(at, f"this adapter runs {_listed(sorted(terms.operations))}")
    model = file.decode(Model, at=at)
    for field, reason in (_input_fault(model, OPERATIONS[name]), _form_fault(model, terms)):
        if reason:
            raise file.invalid((*at, field), reason)
    for parameter, values in model.values.items():
        if reason := _values_fault(OPERATIONS[name], parameter, values):
            raise file.invalid((*at, "values", parameter), reason)


def _input_fault(model: Model, operation: Operation) -> Fault:
    if reason := check_template(model):
        return "input", reason
    most = operation.pictures.max
    pictures = ["image", "images", *(f"image{n}" for n in range(1, most + 1))] if most else []
    unknown = names_in(model.input) - {"attempt", *operation.parameters, *pictures}
    if not unknown:
        return "", ""
    there_is = _listed([*pictures[: 2 + (most > 1) * 2], *operation.parameters, "attempt"])
    return "input", f"${min(unknown)} is nothing that {operation.name} is given; there is {there_is}"


def _form_fault(model: Model, terms: Terms) -> Fault:
    if model.output and not model.output.startswith("/"):
        return "output", "has to be a JSON pointer, which begins with a slash, for example /output/0"
    strange = set(model.media_types) - terms.media_types
    if strange:
        return "media_types", f"{min(strange)} is not among what is sent: {_listed(sorted(terms.media_types))}"
    return "", ""


def _values_fault(operation: Operation, name: str, values: Iterable[str | int]) -> str:
    parameter = operation.parameters.get(name)
    if parameter is None:
        return f"is no parameter of {operation.name}; there is {_listed(operation.parameters)}"
    wrong = [value for value in values if parameter.read(value) is None]
    return f"{wrong[0]!r} is nothing that this parameter can be" if wrong else ""


def _route(file: TomlFile, n: int, table: dict[str, object], providers: dict[str, Provider]) -> Route:
    at: TomlPath = ("route", n)
    _check_choices(file, at, table)
    _check_weights(file, at, table.get("tiers"))
    route = file.decode(Route, at=at)
    if route.operation not in OPERATIONS:
        raise file.invalid((*at, "operation"), f"no operation has this name; there is {_listed(OPERATIONS)}")
    seen: set[str] = set()
    for number, tier in enumerate(route.tiers):
        for name in tier:
            if reason := _fault_in_tier(name, route.operation, providers, seen):
                raise file.invalid((*at, "tiers", number, name), reason)
            seen.add(name)
    return route


def _fault_in_tier(name: str, operation: str, providers: dict[str, Provider], seen: set[str]) -> str:
    if name not in providers:
        return f"no [provider] has this name; there is {_listed(providers)}"
    if operation not in providers[name].operations:
        return f"this provider does not run {operation}"
    return "stands in two tiers of this route" if name in seen else ""


def _check_weights(file: TomlFile, at: TomlPath, tiers: object) -> None:
    for n, tier in enumerate(cast("list[object]", tiers) if isinstance(tiers, list) else []):
        for name, weight in _table(tier).items():
            if type(weight) is not int or not 1 <= weight <= MAX_WEIGHT:
                raise file.invalid((*at, "tiers", n, name), f"a weight is a whole number from 1 to {MAX_WEIGHT}")


def _table(value: object) -> dict[str, object]:
    """Return a table as it is, and nothing for what is none: decoding says what is wrong with that."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"

"""Reads lethe.toml: checked whole, or refused with file, line and reason."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from broker.operations import OPERATIONS
from broker.routes import INHOUSE_MODELS, Config, InhouseProvider, Name, OutsideProvider, Provider, Route, is_loopback
from policies.toml_file import TomlFile, TomlPath
from providers.base import Exposure, Model, Terms
from providers.registry import ADAPTERS
from providers.templates import check_template, is_picture, names_in

DEFAULT_FILE = Path(__file__).with_name("lethe.toml")

_SECRET = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/.+")
_HOST = re.compile(r"(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*")


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    provider: dict[Name, dict[str, object]]
    route: tuple[dict[str, object], ...]


def load_config(path: Path | None = None) -> Config:
    """Read and check a configuration, by default the one that ships with Lethe; raise ConfigInvalid."""
    return read_config(TomlFile.read(path or DEFAULT_FILE))


def read_config(file: TomlFile) -> Config:
    """Check a configuration whole; raise ConfigInvalid with file, line and reason."""
    parts = file.decode(_File)
    providers = {name: _provider(file, name) for name in parts.provider}
    routes: dict[str, Route] = {}
    for n in range(len(parts.route)):
        route = _route(file, n, providers)
        if route.operation in routes:
            raise file.invalid(("route", n, "operation"), f"{route.operation} has a route already")
        routes[route.operation] = route
    return Config(providers=providers, routes=routes)


def _provider(file: TomlFile, name: str) -> Provider:
    at: TomlPath = ("provider", name)
    adapter = file.tree["provider"][name].get("adapter")
    if adapter == "inhouse":
        return _inhouse(file, at)
    if adapter not in ADAPTERS:
        known = ", ".join(["inhouse", *ADAPTERS])
        raise file.invalid((*at, "adapter"), f"no adapter has this name; there is {known}")
    return _outside(file, at)


def _inhouse(file: TomlFile, at: TomlPath) -> InhouseProvider:
    provider = file.decode(InhouseProvider, at=at)
    if not provider.models:
        raise file.invalid((*at, "model"), f"no in-house model has this name; there is {', '.join(INHOUSE_MODELS)}")
    return provider


def _outside(file: TomlFile, at: TomlPath) -> OutsideProvider:
    given = file.decode(OutsideProvider, at=at)
    terms = given.adapter_terms
    provider = msgspec.structs.replace(
        given,
        base_url=(given.base_url or terms.base_url).rstrip("/"),
        retention_s=terms.retention_s if given.retention_s < 0 else given.retention_s,
    )
    for check in (_floor_fault, _url_fault, _secret_fault, _hosts_fault):
        field, reason = check(provider, terms)
        if reason:
            raise file.invalid((*at, field), reason)
    for operation, model in provider.operation.items():
        field, reason = _model_fault(operation, model, terms)
        if reason:
            raise file.invalid((*at, "operation", operation, *([field] if field else [])), reason)
    return provider


Fault = tuple[str, str]
"""A field and what is wrong with it; the reason is empty where nothing is."""


def _floor_fault(provider: OutsideProvider, terms: Terms) -> Fault:
    if provider.contract:
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
    url = urlsplit(provider.base_url)
    if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment or url.username:
        return "base_url", "has to be an http or https URL without user, query and fragment"
    if url.scheme == "http" and provider.exposure is not Exposure.LOCAL and not is_loopback(url.hostname):
        return "base_url", 'a provider outside needs https; http is for this machine, or for exposure = "local"'
    return "", ""


def _secret_fault(provider: OutsideProvider, terms: Terms) -> Fault:
    if provider.secret is None:
        return ("secret", f"is missing; {provider.adapter} needs one") if terms.needs_secret else ("", "")
    if not _SECRET.fullmatch(provider.secret):
        return "secret", "has to be env:NAME or file:/path; a secret never stands in this file"
    return "", ""


def _hosts_fault(provider: OutsideProvider, terms: Terms) -> Fault:
    if terms.gives_urls and not provider.hosts:
        return "hosts", "is missing; outputs come as URLs, so name the hosts that they may point to"
    wrong = next((host for host in provider.hosts if not _HOST.fullmatch(host)), None)
    return ("hosts", f"{wrong} is no host name; write example.org, or *.example.org") if wrong else ("", "")


def _model_fault(operation: str, model: Model, terms: Terms) -> Fault:
    if operation not in OPERATIONS:
        return "", f"no operation has this name; there is {', '.join(OPERATIONS)}"
    if operation not in terms.operations:
        return "", f"this adapter runs {', '.join(sorted(terms.operations))}"
    if reason := check_template(model):
        return "input", reason
    parameters = OPERATIONS[operation].parameters
    unknown = {n for n in names_in(model.input) if n not in parameters and n != "attempt" and not is_picture(n)}
    if unknown:
        return "input", f"${min(unknown)} is no parameter of {operation}; there is {', '.join(['image', *parameters])}"
    strange = set(model.values) - set(parameters)
    return ("values", f"{min(strange)} is no parameter of {operation}") if strange else ("", "")


def _route(file: TomlFile, n: int, providers: dict[str, Provider]) -> Route:
    at: TomlPath = ("route", n)
    route = file.decode(Route, at=at)
    if route.operation not in OPERATIONS:
        raise file.invalid((*at, "operation"), f"no operation has this name; there is {', '.join(OPERATIONS)}")
    for number, tier in enumerate(route.tiers):
        for name in tier:
            if name not in providers:
                raise file.invalid((*at, "tiers", number, name), "no [provider] has this name")
            if route.operation not in providers[name].operations:
                raise file.invalid((*at, "tiers", number, name), f"this provider does not run {route.operation}")
    if len(set(route.providers)) < len(route.providers):
        raise file.invalid((*at, "tiers"), "a provider stands in two tiers")
    return route

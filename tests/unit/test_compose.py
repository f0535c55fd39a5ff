"""The container files: valid by the Compose schema, and every service held as tightly as docs/deploy.md says."""

import json
import re
from pathlib import Path
from typing import Any, cast

import jsonschema
import msgspec
import pytest
import yaml

from broker.settings import Settings

ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).with_name("data") / "compose-spec.json"

Mapping = dict[str, Any]


def compose() -> Mapping:
    return cast("Mapping", yaml.safe_load((ROOT / "compose.yaml").read_text()))


def with_providers() -> Mapping:
    """The file with the lines for providers outside, as an operator has it who took their marks away."""
    text = (ROOT / "compose.yaml").read_text()
    return cast("Mapping", yaml.safe_load(re.sub("^#>", "", text, flags=re.MULTILINE)))


def errors(document: Mapping) -> list[str]:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    found = validator.iter_errors(document)  # pyright: ignore[reportUnknownMemberType]
    return [error.json_path for error in found]


SERVICES: dict[str, Mapping] = compose()["services"]
LETHE = sorted(name for name, service in SERVICES.items() if service["image"].startswith("lethe:"))
ONCE = {
    name
    for service in SERVICES.values()
    for name, wanted in cast("Mapping", service.get("depends_on", {})).items()
    if wanted["condition"] == "service_completed_successfully"
}
each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def test_it_is_a_compose_file() -> None:
    """The file obeys the Compose Specification's own schema."""
    assert errors(compose()) == []


def test_the_lines_for_providers_outside_obey_it_too() -> None:
    """Without their marks they are valid, and only the service that speaks to providers gets their secrets."""
    document = with_providers()
    assert errors(document) == []
    assert document != compose()
    services: dict[str, Mapping] = document["services"]
    assert {name: service["secrets"] for name, service in services.items() if "secrets" in service} == {
        "relay": list(document["secrets"])
    }
    reads_it = {name for name, service in services.items() if "./etc:/etc/lethe:ro" in service.get("volumes", [])}
    assert reads_it == {"broker", "relay", "gpu"}


@pytest.mark.parametrize(("key", "value"), [("helthcheck", {}), ("read_only", []), ("cap_drop", "ALL")])
def test_the_schema_finds_mistakes(key: str, value: object) -> None:
    """A misspelt key or a value of the wrong type is found, so that an empty list of errors means something."""
    document = compose()
    document["services"]["broker"][key] = value
    assert errors(document)


def test_every_process_has_its_service() -> None:
    """The broker, both kinds of worker, the keyholder, its stores and the migration are all there."""
    assert set(SERVICES) == {"broker", "relay", "gpu", "keyholder", "migrate", "postgres", "redis"}
    assert sorted(ONCE) == ["migrate"]


@each_service
def test_every_service_that_stays_has_a_health_check(name: str) -> None:
    """Nothing runs unwatched; what runs once is watched by its exit code."""
    check = SERVICES[name].get("healthcheck", {})
    assert (name in ONCE and SERVICES[name]["restart"] == "no") or len(check.get("test", [])) > 1
    assert not check.get("disable", False)


@each_service
def test_no_service_has_more_rights_than_it_needs(name: str) -> None:
    """Not root, no capability, none to be gained, nothing written to its own file system, no core dump."""
    service = SERVICES[name]
    uid, _, gid = service["user"].partition(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ulimits"]["core"] == 0
    assert not service.keys() & {"privileged", "cap_add", "pid", "ipc", "devices"}


@pytest.mark.parametrize("name", LETHE)
def test_plaintext_and_keys_are_never_swapped(name: str) -> None:
    """Containers that may hold an upload or a key have no swap."""
    assert SERVICES[name]["memswap_limit"] == SERVICES[name]["mem_limit"]


def test_one_port_is_published_on_this_machine_only() -> None:
    """Clients reach the broker through a reverse proxy; nothing else is reached at all."""
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "broker": ["127.0.0.1:8080:8080"]
    }


def test_who_may_leave() -> None:
    """Stores and in-house models have no way out, the keyholder has no network."""
    networks: dict[str, Mapping] = compose()["networks"]
    inside = {name for name, network in networks.items() if network.get("internal")}
    leaving = {name for name, service in SERVICES.items() if set(service.get("networks", [])) - inside}
    assert leaving == {"broker", "relay"}
    assert SERVICES["keyholder"]["network_mode"] == "none"
    assert "networks" not in SERVICES["keyholder"]


def test_only_lethe_s_processes_reach_the_keyholder() -> None:
    """Its socket lies in memory, and only where keys are put or opened."""
    has_socket = {n for n, s in SERVICES.items() if "keyholder:/run/lethe" in s.get("volumes", [])}
    assert has_socket == {"broker", "relay", "gpu", "keyholder"}
    assert compose()["volumes"]["keyholder"]["driver_opts"]["type"] == "tmpfs"
    assert SERVICES["keyholder"]["ulimits"]["memlock"] >= 8 * 1024 * 1024


def test_redis_keeps_nothing() -> None:
    """No snapshot, no append-only file, and no disk to write them to."""
    command = SERVICES["redis"]["command"]
    assert command[command.index("--save") + 1] == ""
    assert command[command.index("--appendonly") + 1] == "no"
    assert "volumes" not in SERVICES["redis"]


def test_postgres_logs_no_content() -> None:
    """Statements, parameters and error details stay out of its log."""
    assert {
        "-clog_min_messages=log",
        "-clog_error_verbosity=terse",
        "-clog_statement=none",
        "-clog_min_error_statement=panic",
        "-clog_min_duration_statement=-1",
        "-clog_parameter_max_length=0",
        "-clog_parameter_max_length_on_error=0",
    } <= set(SERVICES["postgres"]["command"])


def test_variables_are_settings() -> None:
    """Every LETHE_* variable is one that the code reads, and all that have no default are set."""
    fields = msgspec.structs.fields(Settings)
    given = set(SERVICES["broker"]["environment"])
    assert given <= {field.encode_name for field in fields}
    assert {field.encode_name for field in fields if field.required} <= given


def test_the_image_starts_hardened() -> None:
    """Freed memory is overwritten from the first instruction, nobody is root, and every package has its hash."""
    text = (ROOT / "Containerfile").read_text()
    final = text[text.rindex("\nFROM ") :]
    assert "GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.perturb=165" in final
    assert "PYTHONMALLOC=malloc" in final
    assert "USER 10001:10001" in final
    assert "--require-hashes --only-binary=:all:" in text
    assert not any(tool in text for tool in ("gcc", "build-essential", "apt-get install", "curl "))


def test_what_the_image_copies_is_let_through() -> None:
    """Everything that is copied from the context exists and is not ignored, by either tool."""
    allowed = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}
    lines = (ROOT / "Containerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    for source in (name.rstrip("/") for sources in copied for name in sources):
        assert (ROOT / source).exists()
        assert source in allowed or source.split("/")[0] in allowed
    assert (ROOT / ".dockerignore").resolve() == (ROOT / ".containerignore").resolve()

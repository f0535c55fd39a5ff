"""No setting, argument or variable of the product leaves out a part of the guarantee.

Whatever can be said to the product stands here, word for word. Who adds a word answers for it: it may say how much,
how long or where, and never whether.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

import broker.cli
import broker.keyholder
import workers.__main__
from broker.routes import InhouseProvider, OutsideProvider, Route
from broker.settings import Settings
from policies.registry import Profile

ROOT = Path(__file__).parents[2]
PRODUCT = ("broker", "workers", "policies", "providers")
SETTINGS = """
    postgres_dsn redis_url blobs_url keyholder_socket keyholder_ca_file keyholder_certificate_file keyholder_key_file
    receipt_key_file receipt_name profile config_file data_dir listen operator_listen operator_keys_file
    subject_key_file webhook_keys_file fcm_account_file fcm_url apns_key_file apns_app_id
    app_store_root_file app_store_bundle_id play_account_file play_package trusted_proxies lease_s
    public_url slots pictures_at_once max_crashes upload_idle_s upload_within_s rescue_every_s postgres_connections
"""
SPOKEN_TO = ("lethe demo", "lethe submit", "lethe verify", "lethe migrate", "lethe doctor", "lethe forensics")
LOOKED_AT = (
    *("lethe providers", "lethe config", "lethe profile", "lethe notice", "lethe operator-key", "lethe webhook-key"),
    "lethe audit",
)
STORED = ("lethe backup", "lethe restore")
"""Commands on the stores alone, in which there is no upload."""
"""Commands that serve nobody: what they are told cannot change what a deployment does."""
ORDERED = ("lethe hold", "lethe remove-child", "lethe breach")
"""Commands that ask a broker, with an operator key; what it does is not said to them."""
ARGUMENTS = {
    "python -m workers": "pool",
    "python -m broker.keyholder": "socket_path address ca_file certificate_file key_file max_ttl_s capacity memory",
    "lethe up": "directory port config_file profile",
    "lethe broker": "",
    "lethe work": "pool",
    "lethe keyholder": "socket listen ca_file certificate_file key_file capacity max_ttl_s memory drain",
}
PROFILE = {
    "limits": "max_upload_bytes max_input_pixels max_output_pixels jobs_at_once jobs_per_minute "
    "users_per_prefix_per_10_min",
    "deadlines": "start_within_s finish_within_s",
    "metadata": "strip jpeg_quality webp_quality",
    "disclosure": "exposure max_provider_retention_s regions",
    "retention": "outputs outputs_for_s grace_s sealed records_for_s idle_user_for_s",
    "posture": "demands",
    "credits": "prices products",
    "rights": "answer_within_days",
    "consent": "required optional min_age announce_days",
    "publisher": "app name address email officer authority region deletion_url",
}
CONFIGURATION: dict[type[msgspec.Struct], str] = {
    InhouseProvider: "pool model exposure",
    OutsideProvider: "adapter exposure operation base_url pool secret hosts retention_s concurrency contract region "
    "timeout_s options",
    Route: "operation tiers tries deadline_s max_usd on_reject on_uncertain overflow_after_s",
}
READERS = {
    "broker/settings.py": {"environ": 3},  # the settings; a secret that lethe.toml refers to; what children inherit
    "broker/guard.py": {"environ": 2, "argv": 1},  # its own pipe; what its child inherits; what it guards
    "broker/secret_memory.py": {"environ": 1, "orig_argv": 1},  # itself once more, with a heap that forgets
    "workers/images/nursery.py": {"argv": 2},  # its socket and its parent
}
"""Where the environment and the command line are read, and how often."""


def fields(struct: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(struct)]


def parts_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def read_by(path: Path) -> Iterator[str]:
    """The words by which a module reads the environment or the command line, each time that it does."""
    for node in parts_of(path):
        match node:
            case ast.Attribute(attr="environ" | "environb" | "getenv" | "orig_argv" as word):
                yield word
            case ast.Attribute(value=ast.Name(id="sys"), attr="argv"):
                yield "argv"
            case ast.ImportFrom(module="os" | "sys", names=names):
                yield from (alias.name for alias in names)
            case _:
                pass


def named_by(path: Path) -> Iterator[str]:
    """Every module that a module imports, and every string in it."""
    for node in parts_of(path):
        match node:
            case ast.ImportFrom(module=str(name)) | ast.alias(name=name) | ast.Constant(value=str(name)):
                yield name
            case _:
                pass


def modules() -> list[Path]:
    return sorted(path for package in PRODUCT for path in (ROOT / package).rglob("*.py"))


def parameters(command: click.Command) -> list[str]:
    return [parameter.name or "" for parameter in command.params]


def test_the_settings_are_these_and_no_more() -> None:
    """Where things are, how long and how many; none of them says whether."""
    assert fields(Settings) == SETTINGS.split()


def test_the_tables_of_a_profile_hold_these_words_and_no_more() -> None:
    """What an operator may decide of limits, times and demands."""
    tables = {field.name: field.type for field in msgspec.structs.fields(Profile) if field.name != "name"}
    assert {name: fields(table) for name, table in tables.items()} == {n: w.split() for n, w in PROFILE.items()}


@pytest.mark.parametrize("struct", CONFIGURATION, ids=lambda struct: struct.__name__)
def test_a_configuration_holds_these_words_and_no_more(struct: type[msgspec.Struct]) -> None:
    """Who runs an operation and on what terms, not what is done with an upload."""
    assert fields(struct) == CONFIGURATION[struct].split()


def test_what_serves_takes_these_arguments_and_no_more() -> None:
    """Every process of a deployment, however it is started, and no command that is not looked at here."""
    commands = {f"lethe {name}": command for name, command in broker.cli.main.commands.items()}
    commands |= {"python -m workers": workers.__main__.main, "python -m broker.keyholder": broker.keyholder.main}
    serving = {name: parameters(commands[name]) for name in ARGUMENTS}
    assert serving == {name: words.split() for name, words in ARGUMENTS.items()}
    assert set(commands) - set(ARGUMENTS) == {*SPOKEN_TO, *LOOKED_AT, *ORDERED, *STORED}


def test_the_environment_and_the_command_line_are_read_in_these_places() -> None:
    """A variable that nobody declares is read nowhere; `python -m broker` reads no argument at all."""
    found = {str(path.relative_to(ROOT)): Counter(read_by(path)) for path in modules()}
    assert {path: read for path, read in found.items() if read} == READERS


def test_the_product_does_not_know_the_bench() -> None:
    """What wires the product without its guarantee is not imported, started or named by it, and not shipped."""
    named = [path for path in modules() if any(name.partition(".")[0] == "bench" for name in named_by(path))]
    assert named == []
    assert 'include = ["broker*", "workers*", "providers*", "policies*"]' in (ROOT / "pyproject.toml").read_text()

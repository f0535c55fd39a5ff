"""Facts of notices for tests: the profile minimal and what is changed of it, and a lethe.toml with third parties."""

import asyncpg
import msgspec

from broker.config import load_config, read_config
from broker.notices.facts import NoticeFacts, facts_of
from broker.routes import Config
from broker.settings import Settings
from policies.registry import Policies, read_profile
from policies.toml_file import TomlFile
from tests.lifecycle import run_sql
from tests.profiles import profile_text
from tests.relay import route

OUTSIDE = """
[provider.acme]
adapter = "http"
base_url = "https://api.acme.example"
exposure = "logged"
retention_s = 7_776_000
region = "United States"

[provider.acme.operation.animate]
input = { image = "$image", prompt = "$prompt:\\"\\"", seconds = "$duration_s:5" }
output = "/output"

[provider.cloud]
adapter = "replicate"
secret = "env:REPLICATE_API_TOKEN"
exposure = "ephemeral"
hosts = ["replicate.delivery"]

[provider.cloud.operation.upscale]
model = "someone/upscaler"
input = { image = "$image", scale = "$scale:2" }
output = "/output"

[provider.ours]
adapter = "cog"
base_url = "http://127.0.0.1:5000"
exposure = "local"
operation.remove_background.input = { image = "$image" }
operation.remove_background.output = "/output"
"""
ROUTES = [
    route("animate", "[{ acme = 1 }]"),
    route("upscale", "[{ cloud = 1 }]"),
    route("remove_background", "[{ ours = 1 }]"),
]


def policies_of(*tables: str, **changed: str) -> Policies:
    return Policies(read_profile(TomlFile(profile_text(*tables, **changed), name="p.toml")))


def outside_config() -> Config:
    return read_config(TomlFile(OUTSIDE + "".join(ROUTES), name="lethe.toml"))


def facts_in_house(*tables: str, **changed: str) -> NoticeFacts:
    """What the notice of a deployment says that sends nothing anywhere."""
    return facts_of(policies_of(*tables, **changed), load_config())


def facts_outside(*tables: str, exposure: str = '"logged"', **changed: str) -> NoticeFacts:
    """What it says where third parties may get pictures."""
    changed = {"max_provider_retention_s": "7_776_000", **changed}
    return facts_of(policies_of(*tables, exposure=exposure, **changed), outside_config())


def facts_under(settings: Settings, *tables: str, **changed: str) -> NoticeFacts:
    """What a broker of these tests says with the profile of settings_under()."""
    return facts_of(policies_of(*tables, **changed), load_config(settings.config_path), blobs_url=settings.blobs_url)


async def announced(
    settings: Settings, facts: NoticeFacts, *, version: str, since_s: float, effective_s: float
) -> None:
    """Write a notice as if it had been announced `since_s` ago; it takes effect `effective_s` from now."""
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        await connection.execute(
            "INSERT INTO notices (version, digest, facts, announced_at, effective_at) VALUES "
            "($1, $2, $3, now() - $4 * interval '1 second', now() + $5 * interval '1 second')",
            *(version, facts.digest, msgspec.json.encode(facts).decode(), since_s, effective_s),
        )
    finally:
        await connection.close()


async def old_and_new(settings: Settings, *tables: str) -> None:
    """Announce "old", which is in force, and "new", which is that of settings_under() these tables, for a later day."""
    old = facts_under(settings, *tables, records_for_s="86_400")
    await announced(settings, old, version="old", since_s=9e6, effective_s=-9e6)
    await announced(settings, facts_under(settings, *tables), version="new", since_s=9e5, effective_s=9e5)


async def let_its_day_come(settings: Settings, version: str) -> None:
    """Turn the clock of a notice, whose row nobody can change otherwise."""
    await run_sql(
        settings,
        "ALTER TABLE notices DISABLE TRIGGER USER;"
        f"UPDATE notices SET effective_at = now() WHERE version = '{version}';"
        "ALTER TABLE notices ENABLE TRIGGER USER",
    )

"""`lethe breach`: tells everybody whom a breach concerns, and writes the record for the authority."""

from pathlib import Path
from typing import TextIO
from uuid import UUID

import click
import msgspec

from broker.breaches import Record, markdown
from broker.commands.endings import EXISTING, say
from broker.commands.operators import asked, operator_options


@click.group("breach")
def breach_group() -> None:
    """A breach of personal data: told to users through the app, reported to an authority by you.

    \b
    Example:  lethe breach declare breach.toml --key-file alice.key
    """


@breach_group.command("declare")
@click.argument("file", type=EXISTING)
@operator_options
def declare_command(file: Path, *, operator_url: str, key_file: TextIO) -> None:
    """Declare the breach that FILE (TOML) describes; docs/audit.md has one to fill in. It cannot be taken back.

    \b
    Example:  lethe breach declare breach.toml --key-file alice.key
    """
    try:
        described = msgspec.toml.decode(file.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise click.ClickException(f"{file} is no TOML: {exc}") from None
    body = msgspec.to_builtins(described)
    made = asked(operator_url, key_file, "POST", "/breaches", body)
    say(
        f"Declared: {made['id']}, to {made['users_concerned']} users. The authority hears of it by {made['report_by']}:"
    )
    say(f"lethe breach record {made['id']}")


@breach_group.command("record")
@click.argument("breach_id", type=UUID)
@click.option("--format", "form", type=click.Choice(["markdown", "json"]), default="markdown", show_default=True)
@operator_options
def record_command(breach_id: UUID, *, form: str, operator_url: str, key_file: TextIO) -> None:
    """Write the record for an authority, with how many users were told by now.

    \b
    Example:  lethe breach record 6f9c1b1e-… --format markdown --key-file alice.key
    """
    made = asked(operator_url, key_file, "GET", f"/breaches/{breach_id}")
    record = msgspec.convert(made, Record)
    say(markdown(record) if form == "markdown" else msgspec.json.format(msgspec.json.encode(record)).decode())

"""`lethe audit`: the record of what was done to sensitive data."""

import sys
from pathlib import Path

import click

from broker.audit import Broken
from broker.commands.endings import EXISTING, checked, run, say
from broker.sealing import Whole, check_record
from broker.store.audit import AuditStore
from broker.store.database import Database
from broker.verify import read_keys

HASH_CHARS = 64


@click.group("audit")
def audit_group() -> None:
    """The record of what was done to sensitive data: append-only, sealed in a chain of signed batches.

    \b
    Example:  lethe audit verify --keys keys.json
    """


@audit_group.command("verify")
@click.option("--dsn", envvar="LETHE_POSTGRES_DSN", required=True, help="Which database.  [env: LETHE_POSTGRES_DSN]")
@click.option("--keys", type=EXISTING, required=True, help="A saved answer of GET /v1/privacy/keys, kept elsewhere.")
@click.option("--head", default="", metavar="NUMBER:HASH", help="A head that an earlier run printed, or a phone got.")
def verify_command(dsn: str, keys: Path, head: str) -> None:
    """Check the whole record: signatures, the chain, and that no sealed event was changed, added or dropped.

    Without --head a record that was cut off at its end, or made anew by whoever has the signing key, looks whole: keep
    the head that is printed where the database's administrators cannot write. The exit code is 1 when it is broken.

    \b
    Example:  lethe audit verify --keys keys.json --head 812:4f0c…
    """
    known = _known(head) if head else None
    vkeys = checked(read_keys, keys.read_text())
    say("Reading the record …")
    try:
        whole = run(_check(dsn, vkeys, known))
    except Broken as exc:
        click.echo(f"BROKEN: {exc}", err=True)
        sys.exit(1)
    for line in _lines(whole):
        say(line)


def _known(head: str) -> tuple[int, str]:
    number, _, digest = head.partition(":")
    if not number.isdecimal() or len(digest) != HASH_CHARS:
        raise click.BadParameter("a head is NUMBER:HASH, as `lethe audit verify` prints it", param_hint="--head")
    return int(number), digest


async def _check(dsn: str, vkeys: list[str], known: tuple[int, str] | None) -> Whole:
    database = Database(dsn, connections=1)
    await database.open()
    try:
        return await check_record(AuditStore(database), vkeys, known=known)
    finally:
        await database.aclose()


def _lines(whole: Whole) -> list[str]:
    lines = [f"Whole: {whole.events} events in {whole.batches} batches, each signed and following the one before."]
    if whole.deleted:
        lines.append(f"The events of {whole.deleted} batches were deleted at their time; the chain goes on over them.")
    if whole.unsealed:
        lines.append(f"{whole.unsealed} events are not sealed yet, the oldest for {whole.unsealed_s:.0f} s.")
    if whole.head:
        lines.append(f"The head, to keep elsewhere:  {whole.head.number}:{whole.head.hash}")
    return lines

"""`lethe submit | verify`: what a client does, from a shell."""

import sys
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from broker.client import Client
from broker.commands.endings import EXISTING, OUTPUT, checked, pairs_of, run
from broker.forensics.report import is_report, read, show
from broker.opener import Opener
from broker.receipts import ReceiptInvalid
from broker.submit import Order, submit_as
from broker.verify import check, read_keys, sentences

DEFAULT_URL: Final = "http://127.0.0.1:8080"

_url = click.option(
    "--url", envvar="LETHE_URL", default=DEFAULT_URL, show_default=True, help="Where the broker answers."
)


@click.command("submit")
@click.argument("file", type=EXISTING)
@click.option("--operation", default="upscale", show_default=True, help="What to do with it.")
@click.option("-p", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the operation.")
@click.option("--output", type=OUTPUT, required=True, help="Where the result goes.")
@click.option("--receipt", type=OUTPUT, help="Where the receipt goes.")
@click.option(
    "--device", type=OUTPUT, help="Open a sealed result with the key in this file; a new key is made where none is."
)
@click.option("--keep", is_flag=True, help="Leave the result on the server until its time is up.")
@click.option(
    "--token", envvar="LETHE_TOKEN", default="", help="Be this user; a new one if not given.  [env: LETHE_TOKEN]"
)
@_url
def submit_command(
    file: Path,
    *,
    operation: str,
    parameters: tuple[str, ...],
    output: Path,
    receipt: Path | None,
    device: Path | None,
    keep: bool,
    **user: str,
) -> None:
    """Send one picture, wait, save the result, and have it deleted on the server.

    \b
    Example:  lethe submit photo.jpg --operation upscale -p scale=2 --output large.jpg --receipt receipt.txt
              lethe submit photo.jpg --operation restyle --output drawing.jpg --device device.key --keep
    """
    opener = checked(Opener.kept_in, device) if device else None
    order = Order(
        file=file,
        operation=operation,
        parameters=pairs_of(parameters),
        output=output,
        receipt=receipt,
        device=opener,
    )
    run(submit_as(order, url=user["url"], token=user["token"], keep=keep, console=Console(highlight=False)))


@click.command("verify")
@click.argument("file", type=EXISTING)
@click.option("--keys", type=EXISTING, help="A saved answer of GET /v1/privacy/keys, or any file with keys in it.")
@click.option("--url", envvar="LETHE_URL", help="Ask this broker for its keys instead; the file is not sent.")
def verify_command(file: Path, keys: Path | None, url: str | None) -> None:
    """Check a receipt, or a report of `lethe forensics`, and say in words what it states; offline with --keys.

    The exit code is 1 when it is not valid.

    \b
    Example:  lethe verify receipt.txt --keys keys.json
              lethe verify privacy-report.json --keys keys.txt
    """
    if keys is None and url is None:
        raise click.UsageError("name the keys: --keys FILE (offline), or --url of the broker that signed")
    known = checked(read_keys, keys.read_text() if keys else run(_ask_for_keys(url or "")))
    try:
        _tell(file.read_text(), known)
    except (ReceiptInvalid, UnicodeDecodeError) as exc:
        click.echo(f"NOT VALID: {exc}", err=True)
        sys.exit(1)


def _tell(note: str, keys: list[str]) -> None:
    if is_report(note):
        report = read(note, keys)
        click.echo("Valid. Whoever holds the signing key states:")
        show(report, Console(highlight=False))
        return
    receipt = check(note, keys)
    click.echo("Valid. The server that holds the signing key states:")
    for sentence in sentences(receipt):
        click.echo(sentence)


async def _ask_for_keys(url: str) -> str:
    async with Client(url) as client:
        return await client.receipt_keys()
